package blockdevtest

import (
	"pgregory.net/rapid"

	"sealblk/blockdev"
)

// model is the device as an array, and the batch that is being collected.
type model struct {
	*suite
	rt     *rapid.T
	driver *Driver
	bytes  []byte
	batch  []*blockdev.Request
	checks []func()
}

// testModel runs random batches of requests, those of one batch in flight
// together, and compares every read with an array of bytes.
func testModel(s *suite) {
	window := min(s.info.Capacity, 256<<10)
	rapid.Check(s.T, func(rt *rapid.T) {
		q, done := s.queue(s.dev, s.opts.Depth)
		m := &model{suite: s, rt: rt, bytes: make([]byte, window)}
		m.driver = NewDriver(rt, q, rapid.IntRange(1, s.opts.Depth).Draw(rt, "burst"))
		m.driver.Write(0, m.bytes)
		for range rapid.IntRange(1, 30).Draw(rt, "requests") {
			m.step()
		}
		m.flush()
		m.compare("at the end", 0, m.driver.Read(0, window), m.bytes)
		done()
	})
}

func (m *model) step() {
	ops := []blockdev.Op{blockdev.Read, blockdev.Write, blockdev.Read, blockdev.Write, blockdev.Flush}
	if m.info.Features.WriteZeroes {
		ops = append(ops, blockdev.WriteZeroes)
	}
	if m.info.Features.Discard && m.opts.DiscardZeroes {
		ops = append(ops, blockdev.Discard)
	}
	op := rapid.SampledFrom(ops).Draw(m.rt, "op")
	offset, length := m.drawRange()
	if len(m.batch) == m.opts.Depth || m.conflicts(op, offset, length) {
		m.flush()
	}
	switch op {
	case blockdev.Flush:
		m.batch = append(m.batch, &blockdev.Request{Op: op})
	case blockdev.Read:
		m.read(offset, length)
	case blockdev.Write:
		m.write(offset, length)
	default:
		unmap := rapid.Bool().Draw(m.rt, "unmap")
		m.batch = append(m.batch, &blockdev.Request{Op: op, Offset: offset, Length: length, MayUnmap: unmap})
		clear(m.bytes[offset : offset+length])
	}
}

// drawRange favours short ranges and ones that meet 4 KiB and 64 KiB boundaries.
func (m *model) drawRange() (offset, length int64) {
	blocks := len(m.bytes) / m.info.LogicalBlockSize
	longest := rapid.SampledFrom([]int{1, 8, 40, 300, blocks}).Draw(m.rt, "scale")
	n := rapid.IntRange(0, min(longest, blocks)).Draw(m.rt, "blocks")
	first := rapid.IntRange(0, blocks-n).Draw(m.rt, "first")
	return int64(first) * m.block(), int64(n) * m.block()
}

// conflicts reports whether the outcome of a request would depend on the order in
// which the batch is served.
func (m *model) conflicts(op blockdev.Op, offset, length int64) bool {
	if op == blockdev.Flush {
		return false
	}
	for _, r := range m.batch {
		apart := offset+length <= r.Offset || r.Offset+r.Length <= offset
		if r.Op != blockdev.Flush && !apart && (op != blockdev.Read || r.Op != blockdev.Read) {
			return true
		}
	}
	return false
}

func (m *model) scatter(length int64) *Scatter {
	var pieces []int
	for left := int(length); left > 0; {
		size := rapid.SampledFrom([]int{0, 1, 7, 16, 511, 512, 513, 4095, 4096, 4097, 65536, left}).Draw(m.rt, "piece")
		if len(pieces) > 40 {
			size = left
		}
		size = min(size, left)
		pieces = append(pieces, size)
		left -= size
	}
	return NewScatter(rapid.SampledFrom([]int{0, 1, 64, 512, 4096}).Draw(m.rt, "gap"), pieces...)
}

func (m *model) read(offset, length int64) {
	in := m.scatter(length)
	want := append([]byte(nil), m.bytes[offset:offset+length]...)
	m.batch = append(m.batch, in.Request(blockdev.Read, offset))
	m.checks = append(m.checks, func() {
		m.compare("read", offset, in.Bytes(), want)
		if !in.Intact() {
			m.rt.Fatalf("read at %d+%d changed memory outside its buffers", offset, length)
		}
	})
}

func (m *model) write(offset, length int64) {
	data := Noise(rapid.Uint64Range(1, 1<<20).Draw(m.rt, "seed"), length)
	r := m.scatter(length).Fill(data).Request(blockdev.Write, offset)
	r.FUA = rapid.Bool().Draw(m.rt, "fua")
	m.batch = append(m.batch, r)
	copy(m.bytes[offset:], m.expect(data))
}

func (m *model) flush() {
	m.driver.Must(m.batch...)
	for _, check := range m.checks {
		check()
	}
	m.batch, m.checks = nil, nil
}

// compare is like suite.same, but fails the rapid test, which then shrinks.
func (m *model) compare(what string, offset int64, got, want []byte) {
	if i := differ(got, want); i >= 0 {
		m.rt.Fatalf("%s: byte %d (device offset %d) is %#02x, want %#02x", what, i, offset+int64(i), got[i], want[i])
	}
}
