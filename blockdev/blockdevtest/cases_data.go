package blockdevtest

import (
	"bytes"
	"fmt"

	"sealblk/blockdev"
)

func testInfo(s *suite) {
	logical, physical := s.info.LogicalBlockSize, s.info.PhysicalBlockSize
	if logical < 512 || logical > 4096 || logical&(logical-1) != 0 {
		s.Errorf("logical block size is %d", logical)
	}
	if physical < logical || physical&(physical-1) != 0 {
		s.Errorf("physical block size is %d with a logical one of %d", physical, logical)
	}
	if s.info.Capacity%s.block() != 0 {
		s.Errorf("capacity %d is not a multiple of %d", s.info.Capacity, logical)
	}
	if s.info.Capacity < 1<<20 {
		s.Errorf("capacity %d is too small for the suite", s.info.Capacity)
	}
	if again := s.dev.Info(); again != s.info {
		s.Errorf("info changed from %+v to %+v", s.info, again)
	}
}

// testRoundTrip writes in pieces of one size and reads back in pieces of another,
// at both ends of the device.
func testRoundTrip(s *suite) {
	d, done := s.driver()
	defer done()
	const area = 256 << 10
	for _, start := range []int64{0, s.info.Capacity - area} {
		want := Noise(uint64(start), area)
		for _, size := range []int64{s.block(), 3 * s.block(), 64 << 10} {
			for at := int64(0); at < area; at += size {
				d.Write(start+at, want[at:min(at+size, area)])
			}
			s.same("one read", start, d.Read(start, area), want)
		}
		for at := int64(0); at < area; at += s.block() {
			s.same("read of a block", start+at, d.Read(start+at, s.block()), want[at:at+s.block()])
		}
	}
}

type layout struct {
	name   string
	pieces []int
}

// layouts are ways to cut n bytes in pieces.
func layouts(n int) []layout {
	const iovMax = 1024
	return []layout{
		{"whole", []int{n}},
		{"empty pieces", []int{0, n / 2, 0, 0, n - n/2, 0}},
		{"first byte apart", []int{1, n - 1}},
		{"last byte apart", []int{n - 1, 1}},
		{"header sized", []int{16, n - 17, 1}},
		{"ends off by one", []int{511, n - 1022, 511}},
		{"more than iovecs", repeat(1, iovMax+100, n)},
		{"odd pieces", repeat(4095, n/4095, n)},
		{"odd small pieces", repeat(77, n/77, n)},
		{"pages off by one", append([]int{1}, repeat(4096, n/4096-1, n-1)...)},
		{"pages", repeat(4096, n/4096, n)},
		{"sectors", repeat(512, n/512, n)},
		{"sector and 3 bytes", append([]int{515}, repeat(512, n/1024, n-515)...)},
	}
}

// repeat cuts n bytes in count pieces of a size and one with the rest.
func repeat(size, count, n int) []int {
	var pieces []int
	for range count {
		pieces = append(pieces, size)
		n -= size
	}
	return append(pieces, n)
}

func testFragments(s *suite) {
	d, done := s.driver()
	defer done()
	const n = 36 << 10
	for _, cut := range layouts(n) {
		for _, gap := range []int{0, 1, 63, 512} {
			what := fmt.Sprintf("%s, gap %d", cut.name, gap)
			offset := int64(gap) * 4096 % (1<<20 - n)
			want := Noise(uint64(gap)+1, n)
			out := NewScatter(gap, cut.pieces...).Fill(want)
			d.Must(out.Request(blockdev.Write, offset))
			if !out.Intact() || !bytes.Equal(out.Bytes(), want) {
				s.Fatalf("%s: the write changed its memory", what)
			}
			s.same(what+": written", offset, d.Read(offset, n), want)

			in := NewScatter(gap, cut.pieces...)
			d.Must(in.Request(blockdev.Read, offset))
			s.same(what+": read", offset, in.Bytes(), want)
			if !in.Intact() {
				s.Fatalf("%s: the read changed memory outside its buffers", what)
			}
		}
	}
}

func testEmpty(s *suite) {
	d, done := s.driver()
	defer done()
	want := Noise(1, 8192)
	d.Write(0, want)
	ops := []blockdev.Op{blockdev.Read, blockdev.Write}
	if s.info.Features.Discard {
		ops = append(ops, blockdev.Discard)
	}
	if s.info.Features.WriteZeroes {
		ops = append(ops, blockdev.WriteZeroes)
	}
	for _, op := range ops {
		for _, offset := range []int64{0, 4096, s.info.Capacity} {
			d.Must(&blockdev.Request{Op: op, Offset: offset})
			if op == blockdev.Read || op == blockdev.Write {
				d.Must(NewScatter(1, 0, 0, 0).Request(op, offset))
			}
		}
	}
	s.same("after empty requests", 0, d.Read(0, 8192), want)
}

func testFlush(s *suite) {
	d, done := s.driver()
	defer done()
	d.Must(&blockdev.Request{Op: blockdev.Flush})
	d.Must(&blockdev.Request{Op: blockdev.Flush, Offset: -5, Length: 1 << 62, Buffers: [][]byte{{1}}})

	want := Noise(2, 12288)
	r := transfer(blockdev.Write, 4096, want)
	r.FUA = true
	d.Must(r)
	d.Must(&blockdev.Request{Op: blockdev.Flush})
	if s.info.Features.WriteZeroes {
		d.Must(&blockdev.Request{Op: blockdev.WriteZeroes, FUA: true, Offset: 4096, Length: 4096})
		clear(want[:4096])
	}
	s.same("after flush", 4096, d.Read(4096, 12288), want)
}

func testWriteZeroes(s *suite) {
	if !s.info.Features.WriteZeroes {
		return
	}
	for _, mayUnmap := range []bool{false, true} {
		r := blockdev.Request{Op: blockdev.WriteZeroes, MayUnmap: mayUnmap}
		s.erase(r, true)
	}
}

func testDiscard(s *suite) {
	if !s.info.Features.Discard {
		return
	}
	s.erase(blockdev.Request{Op: blockdev.Discard}, s.opts.DiscardZeroes)
}

// erase applies a request without buffers to ranges of all kinds of alignment and
// checks that it reached no other byte.
func (s *suite) erase(r blockdev.Request, zeroes bool) {
	d, done := s.driver()
	defer done()
	size := min(s.info.Capacity, 1<<20)
	b := s.block()
	ranges := [][2]int64{{0, b}, {b, b}, {4096 - b, 2 * b}, {8192, 4096}, {3 * b, 100*1024 + b},
		{size - b, b}, {4096, size - 8192}, {0, size}}
	for _, rg := range ranges {
		offset, length := rg[0], rg[1]
		want := Noise(uint64(offset), size)
		d.Write(0, want)
		r.Offset, r.Length = offset, length
		d.Must(&r)
		got := d.Read(0, size)
		if zeroes {
			clear(want[offset : offset+length])
		} else {
			copy(want[offset:offset+length], got[offset:])
		}
		s.same(fmt.Sprintf("op %d at %d+%d (unmap %v)", r.Op, offset, length, r.MayUnmap), 0, got, want)
	}
}
