package file

import (
	"bytes"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"sealblk/blockdev"
)

// kernel is a file in memory that serves calls as badly as a kernel may.
type kernel struct {
	t     *rapid.T
	data  []byte
	punch bool // PUNCH_HOLE works
	zero  bool // ZERO_RANGE works
	unit  int  // transfers are multiples of it
	syncs int
	dsync int // writes with RWF_DSYNC
}

func (k *kernel) do(c *call) int32 {
	if errno := rapid.SampledFrom([]unix.Errno{0, 0, 0, unix.EINTR, unix.EAGAIN}).Draw(k.t, "errno"); errno != 0 {
		return -int32(errno)
	}
	switch c.kind {
	case callSync:
		k.syncs++
		return 0
	case callAllocate:
		return k.allocate(c)
	}
	if c.rwf == unix.RWF_DSYNC {
		k.dsync++
	}
	return k.transfer(c)
}

func (k *kernel) allocate(c *call) int32 {
	works := k.punch
	if c.mode == modeZero {
		works = k.zero
	}
	if !works {
		return -int32(unix.EOPNOTSUPP)
	}
	clear(k.data[c.off : c.off+c.n])
	return 0
}

func (k *kernel) transfer(c *call) int32 {
	if len(c.iov) == 0 || len(c.iov) > iovMax {
		k.t.Fatalf("a call with %d buffers", len(c.iov))
	}
	var total int
	for _, v := range c.iov {
		total += int(v.Len)
	}
	if total%k.unit != 0 {
		k.t.Fatalf("a transfer of %d bytes in units of %d", total, k.unit)
	}
	left := k.unit * rapid.IntRange(1, total/k.unit).Draw(k.t, "units moved")
	moved := int32(left)
	part := k.data[c.off : int(c.off)+left]
	for _, v := range c.iov {
		b := unsafe.Slice(v.Base, v.Len)
		b = b[:min(len(b), len(part))]
		if c.kind == callRead {
			copy(b, part)
		} else {
			copy(part, b)
		}
		part = part[len(b):]
	}
	return moved
}

// pieces cuts data at random places that are multiples of unit.
func pieces(t *rapid.T, data []byte, unit int) [][]byte {
	var bufs [][]byte
	for len(data) > 0 {
		n := unit * rapid.IntRange(0, len(data)/unit).Draw(t, "piece")
		bufs = append(bufs, data[:n])
		data = data[n:]
		if len(bufs) > 8 {
			bufs = append(bufs, data)
			break
		}
	}
	return bufs
}

func drawRequest(t *rapid.T, capacity, unit int) *blockdev.Request {
	r := &blockdev.Request{
		Op:       rapid.SampledFrom([]blockdev.Op{blockdev.Read, blockdev.Write, blockdev.Flush, blockdev.Discard, blockdev.WriteZeroes}).Draw(t, "op"),
		FUA:      rapid.Bool().Draw(t, "fua"),
		MayUnmap: rapid.Bool().Draw(t, "unmap"),
	}
	blocks := capacity / 512
	first := rapid.IntRange(0, blocks).Draw(t, "first block")
	r.Offset = int64(first) * 512
	r.Length = 512 * int64(rapid.IntRange(0, blocks-first).Draw(t, "blocks"))
	if r.Op == blockdev.Read || r.Op == blockdev.Write {
		data := bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, int(r.Length))
		r.Buffers = pieces(t, data, unit)
	}
	return r
}

// TestOpAgainstModel runs requests over calls that are short, interrupted and
// unsupported at random, and compares the file with what it should hold.
func TestOpAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const header, capacity = 1024, 32 << 10
		unit := rapid.SampledFrom([]int{1, 4, 512}).Draw(t, "unit")
		k := &kernel{
			t: t, data: make([]byte, header+capacity), unit: 1,
			punch: rapid.Bool().Draw(t, "punch"), zero: rapid.Bool().Draw(t, "zero"),
		}
		dev := &backing{offset: header, unit: 512}
		dev.punches = true
		if unit > 1 {
			dev.align = alignment{mem: unit, offset: 512}
			k.unit = 512
		}
		o := &op{dev: dev}
		want := make([]byte, capacity)
		for range 10 {
			r := drawRequest(t, capacity, unit)
			k.syncs, k.dsync = 0, 0
			for complete := o.begin(r); !complete; complete = o.advance(k.do(&o.call)) {
			}
			if o.err != nil {
				t.Fatalf("op %d: %v", r.Op, o.err)
			}
			k.check(r, want)
			if !bytes.Equal(k.data[header:], want) || !bytes.Equal(k.data[:header], make([]byte, header)) {
				t.Fatalf("the file differs from the model after op %d at %d+%d", r.Op, r.Offset, r.Length)
			}
		}
	})
}

// check applies r to the model and tells whether it was made durable where it had
// to be.
func (k *kernel) check(r *blockdev.Request, want []byte) {
	part := want[r.Offset : r.Offset+r.Length]
	syncs := 0
	switch r.Op {
	case blockdev.Read:
		if got := slices.Concat(r.Buffers...); !bytes.Equal(got, part) {
			k.t.Fatalf("read at %d+%d differs from the model", r.Offset, r.Length)
		}
	case blockdev.Write:
		copy(part, slices.Concat(r.Buffers...))
		if r.FUA != (k.dsync > 0) && r.Length > 0 {
			k.t.Fatalf("FUA %v, but %d writes with RWF_DSYNC", r.FUA, k.dsync)
		}
	case blockdev.Flush:
		syncs = 1
	default:
		clear(part)
		if r.FUA && r.Length > 0 {
			syncs = 1
		}
	}
	if k.syncs != syncs {
		k.t.Fatalf("op %d (FUA %v): %d syncs, want %d", r.Op, r.FUA, k.syncs, syncs)
	}
}

func TestOpErrors(t *testing.T) {
	read, write := rw(blockdev.Read, 0, make([]byte, 1024)), rw(blockdev.Write, 0, make([]byte, 1024))
	flush := &blockdev.Request{Op: blockdev.Flush}
	discard := &blockdev.Request{Op: blockdev.Discard, Length: 1024}
	failed := func(e unix.Errno) int32 { return -int32(e) }
	for _, c := range []struct {
		name    string
		direct  bool
		req     *blockdev.Request
		results []int32
		want    error
	}{
		{"end of file", false, read, []int32{0}, blockdev.ErrShort},
		{"end of file after a part", false, read, []int32{512, 0}, blockdev.ErrShort},
		{"end of file in a block", true, read, []int32{512, 100}, blockdev.ErrShort},
		{"write of nothing", false, write, []int32{0}, unix.EIO},
		{"write of part of a block", true, write, []int32{700}, unix.EIO},
		{"error after a part", false, write, []int32{512, failed(unix.ENOSPC)}, unix.ENOSPC},
		{"error", false, read, []int32{failed(unix.EIO)}, unix.EIO},
		{"failed flush", false, flush, []int32{failed(unix.EIO)}, unix.EIO},
		{"failed discard", false, discard, []int32{failed(unix.EIO)}, unix.EIO},
		{"discard that is not supported", false, discard, []int32{failed(unix.EOPNOTSUPP), failed(unix.EOPNOTSUPP), 1024}, nil},
		{"again for ever", false, read, slices.Repeat([]int32{failed(unix.EAGAIN)}, maxAgain+1), unix.EAGAIN},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := &backing{unit: 512, punches: true}
			if c.direct {
				dev.align = alignment{4, 512}
			}
			o := &op{dev: dev}
			complete := o.begin(c.req)
			for _, res := range c.results {
				if complete {
					t.Fatalf("complete before %d", res)
				}
				complete = o.advance(res)
			}
			if !complete || o.err != c.want {
				t.Fatalf("complete %v, error %v, want %v", complete, o.err, c.want)
			}
		})
	}
}

// TestFailedSyncSticks: data that was lost is not covered up by a later flush,
// whichever queue it comes from. A write with FUA can be given the only report of a loss,
// by the page cache or by the cache of a disk; the want of space is its own.
func TestFailedSyncSticks(t *testing.T) {
	flush := blockdev.Request{Op: blockdev.Flush}
	write := blockdev.Request{Op: blockdev.Write, Length: 512, Buffers: [][]byte{make([]byte, 512)}}
	fua, discard := write, blockdev.Request{Op: blockdev.Discard, FUA: true, Length: 512}
	fua.FUA = true
	for _, c := range []struct {
		name    string
		req     blockdev.Request
		results []int32
		direct  bool
		sticks  bool
	}{
		{"flush", flush, []int32{-int32(unix.EIO)}, false, true},
		{"flush, direct", flush, []int32{-int32(unix.EIO)}, true, true},
		{"write with FUA", fua, []int32{-int32(unix.EIO)}, false, true},
		{"write with FUA, direct", fua, []int32{-int32(unix.EIO)}, true, true},
		{"write with FUA, no space", fua, []int32{-int32(unix.ENOSPC)}, false, true},
		{"write with FUA, direct, no space", fua, []int32{-int32(unix.ENOSPC)}, true, false},
		{"write, direct", write, []int32{-int32(unix.EIO)}, true, false},
		{"write", write, []int32{-int32(unix.EIO)}, false, false},
		{"discard with FUA", discard, []int32{0, -int32(unix.EIO)}, true, true},
	} {
		dev := &backing{unit: 512, punches: true}
		if c.direct {
			dev.align = alignment{4, 512}
		}
		first, second := &op{dev: dev}, &op{dev: dev}
		first.begin(&c.req)
		for _, res := range c.results {
			first.advance(res)
		}
		if want := unix.Errno(-c.results[len(c.results)-1]); first.err != want {
			t.Errorf("%s: error %v, want %v", c.name, first.err, want)
		}
		complete := second.begin(&flush)
		if complete != c.sticks || (second.err == unix.EIO) != c.sticks {
			t.Errorf("%s: a flush after it: complete %v, error %v", c.name, complete, second.err)
		}
	}
}
