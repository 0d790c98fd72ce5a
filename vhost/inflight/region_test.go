package inflight

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/internal/leaktest"
	"sealblk/vhost/protocol"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newRegion is a region that was made, kept and handed over.
func newRegion(t testing.TB, queues, size int) *Region {
	t.Helper()
	d, fd, err := Create(queues, size, 0)
	must(t, err)
	r, err := Open(d, fd)
	must(t, err)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Offsets of the specification's structures, by hand.
const (
	atVersion       = 8
	atDescNum       = 10
	atLastBatchHead = 12
	atUsedIdx       = 14
	atDesc          = 16
	descBytes       = 16
	inNext          = 6
	inCounter       = 8
)

func u16(b []byte, at int) uint16 { return binary.NativeEndian.Uint16(b[at:]) }

func TestLayoutIsThatOfTheSpecification(t *testing.T) {
	r := newRegion(t, 2, 128)
	if n := len(r.mapped); n != 2*2112+memoBytes {
		t.Fatalf("two queues of 128 take %d bytes, want a memo and 2 times 16 + 128 * 16 rounded up to 64", n)
	}
	if r.Served(1) {
		t.Error("a new region was served")
	}
	q, heads, err := r.Recover(1, 128, 700)
	if err != nil || len(heads) != 0 {
		t.Fatal(heads, err)
	}
	b := r.mapped[2112:]
	if u16(b, atVersion) != 1 || u16(b, atDescNum) != 128 || u16(b, atUsedIdx) != 700 {
		t.Errorf("header % x", b[:16])
	}
	if !r.Served(1) || r.Served(0) {
		t.Error("the wrong queue was served")
	}
	q.Take(5)
	q.Take(127)
	five, last := b[atDesc+5*descBytes:], b[atDesc+127*descBytes:]
	if five[0] != 1 || last[0] != 1 || five[inCounter] != 0 || last[inCounter] != 1 {
		t.Errorf("entries of taken chains: % x, % x", five[:16], last[:16])
	}
	q.Done(5)
	q.Done(127)
	q.Seal()
	if u16(b, atLastBatchHead) != 127 || u16(last, inNext) != 5 || u16(b, atUsedIdx) != 700 || five[0]&last[0] != 1 {
		t.Errorf("sealed batch: % x, % x, % x", b[:16], five[:16], last[:16])
	}
	q.Published(702)
	if u16(b, atUsedIdx) != 702 || five[0]|last[0] != 0 {
		t.Errorf("published batch: % x, % x, % x", b[:16], five[:16], last[:16])
	}
	if !bytes.Equal(r.mapped[:2112], make([]byte, 2112)) {
		t.Error("the other queue's part was written to")
	}
}

func TestCreatedFileKeepsItsSize(t *testing.T) {
	_, fd, err := Create(1, 8, 0)
	must(t, err)
	defer unix.Close(fd)
	for _, n := range []int64{0, 1 << 20} {
		if err := unix.Ftruncate(fd, n); err == nil {
			t.Errorf("resized to %d", n)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	for _, c := range [][2]int{{0, 8}, {1, 0}, {257, 8}, {1, 32769}, {-1, 8}} {
		if _, _, err := Create(c[0], c[1], 0); !errors.Is(err, ErrShape) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func memfd(t *testing.T, size int64, flags int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("region", flags|unix.MFD_CLOEXEC)
	must(t, err)
	must(t, unix.Ftruncate(fd, size))
	return fd
}

func TestOpenRefuses(t *testing.T) {
	good := protocol.Inflight{MmapSize: 384, NumQueues: 2, QueueSize: 8}
	page := uint64(os.Getpagesize())
	sealable := func(t *testing.T) int { return memfd(t, 8192, unix.MFD_ALLOW_SEALING) }
	for _, c := range []struct {
		name   string
		change func(*protocol.Inflight)
		file   func(*testing.T) int
		want   error
	}{
		{"good", func(*protocol.Inflight) {}, sealable, nil},
		{"longer than needed", func(d *protocol.Inflight) { d.MmapSize = 8192 }, sealable, nil},
		{"elsewhere in the file", func(d *protocol.Inflight) { d.MmapOffset = page }, sealable, nil},
		{"no queues", func(d *protocol.Inflight) { d.NumQueues = 0 }, sealable, ErrShape},
		{"too many queues", func(d *protocol.Inflight) { d.NumQueues = 257 }, sealable, ErrShape},
		{"queues of nothing", func(d *protocol.Inflight) { d.QueueSize = 0 }, sealable, ErrShape},
		{"huge queues", func(d *protocol.Inflight) { d.QueueSize = 65535 }, sealable, ErrShape},
		{"too short", func(d *protocol.Inflight) { d.MmapSize = 383 }, sealable, ErrFile},
		{"no size", func(d *protocol.Inflight) { d.MmapSize = 0 }, sealable, ErrFile},
		{"longer than the file", func(d *protocol.Inflight) { d.MmapSize = 8193 }, sealable, ErrFile},
		{"behind the file", func(d *protocol.Inflight) { d.MmapOffset = 2 * page }, sealable, ErrFile},
		{"wraps", func(d *protocol.Inflight) { d.MmapOffset, d.MmapSize = -page, 2*page }, sealable, ErrFile},
		{"misaligned", func(d *protocol.Inflight) { d.MmapOffset = 64 }, sealable, ErrFile},
		{"cannot be sealed", func(*protocol.Inflight) {}, func(t *testing.T) int { return memfd(t, 8192, 0) }, ErrFile},
		{"huge pages", func(*protocol.Inflight) {}, func(t *testing.T) int {
			fd, err := unix.MemfdCreate("region", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_HUGETLB)
			if err != nil {
				leaktest.Missing(t, "huge page memfds: "+err.Error())
			}
			must(t, unix.Ftruncate(fd, 2<<20))
			return fd
		}, ErrFile},
		{"no memory at all", func(*protocol.Inflight) {}, func(t *testing.T) int {
			fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
			must(t, err)
			return fd
		}, ErrFile},
		{"a file on disk", func(*protocol.Inflight) {}, func(t *testing.T) int {
			fd, err := unix.Open(filepath.Join(t.TempDir(), "f"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
			must(t, err)
			must(t, unix.Ftruncate(fd, 8192))
			return fd
		}, ErrFile},
		{"another version", func(*protocol.Inflight) {}, withBytes(sealable, 192+atVersion, 2), ErrVersion},
		{"another size", func(*protocol.Inflight) {}, withBytes(sealable, 192+atVersion, 1, 0, 16), ErrVersion},
		{"a feature", func(*protocol.Inflight) {}, withBytes(sealable, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8), ErrVersion},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, fd := good, c.file(t)
			c.change(&d)
			r, err := Open(d, fd)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if c.want == nil {
				if err := unix.Ftruncate(fd, 0); err == nil {
					t.Error("the file can be truncated while it is in use")
				}
				must(t, r.Close())
			}
		})
	}
}

func withBytes(file func(*testing.T) int, at int64, b ...byte) func(*testing.T) int {
	return func(t *testing.T) int {
		fd := file(t)
		_, err := unix.Pwrite(fd, b, at)
		must(t, err)
		return fd
	}
}

func TestRecoverRefuses(t *testing.T) {
	for _, c := range []struct {
		name      string
		lie       func(b []byte) // with chains 2 and 3 in flight and a used index of 10
		queue     int
		ring      int
		used      uint16
		want      error
		wantHeads []uint16
	}{
		{"nothing wrong", func([]byte) {}, 0, 8, 10, nil, []uint16{2, 3}},
		{"smaller ring", func([]byte) {}, 0, 4, 10, nil, []uint16{2, 3}},
		{"no such queue", func([]byte) {}, 1, 8, 10, ErrShape, nil},
		{"larger ring", func([]byte) {}, 0, 16, 10, ErrShape, nil},
		{"in flight outside the ring", func([]byte) {}, 0, 2, 10, ErrContent, nil},
		{"used index of another ring", func([]byte) {}, 0, 8, 9, ErrContent, nil},
		{"batch longer than the queue", func([]byte) {}, 0, 8, 19, ErrContent, nil},
		{"batch from outside", func(b []byte) { b[atLastBatchHead] = 8 }, 0, 8, 11, ErrContent, nil},
		{"batch leads outside", func(b []byte) { b[atLastBatchHead] = 2; b[atDesc+2*descBytes+inNext+1] = 1 }, 0, 8, 12, ErrContent, nil},
		{"batch that loops", func(b []byte) { b[atLastBatchHead] = 2; b[atDesc+2*descBytes+inNext] = 2 }, 0, 8, 18, nil, []uint16{3}},
		{"strange mark", func(b []byte) { b[atDesc] = 2 }, 0, 8, 10, ErrContent, nil},
		{"version changed since", func(b []byte) { b[atVersion] = 3 }, 0, 8, 10, ErrVersion, nil},
		{"counters that are equal", func(b []byte) { b[atDesc+3*descBytes+inCounter] = 0 }, 0, 8, 10, nil, []uint16{2, 3}},
		{"last counter there is", func(b []byte) {
			binary.NativeEndian.PutUint64(b[atDesc+2*descBytes+inCounter:], 1<<64-1)
		}, 0, 8, 10, ErrContent, nil},
		{"last counter that may be", func(b []byte) {
			binary.NativeEndian.PutUint64(b[atDesc+2*descBytes+inCounter:], lastCounter)
		}, 0, 8, 10, nil, []uint16{3, 2}},
		{"version gone", func(b []byte) { b[atVersion] = 0 }, 0, 8, 10, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRegion(t, 1, 8)
			q, _, err := r.Recover(0, 8, 10)
			must(t, err)
			q.Take(2)
			q.Take(3)
			c.lie(r.mapped)
			_, heads, err := r.Recover(c.queue, c.ring, c.used)
			if !errors.Is(err, c.want) || !slices.Equal(heads, c.wantHeads) {
				t.Errorf("heads %v, error %v, want %v, %v", heads, err, c.wantHeads, c.want)
			}
		})
	}
}

// A ring that is set up anew after all its requests were returned has any used index.
func TestEmptyRegionTakesAnyUsedIndex(t *testing.T) {
	r := newRegion(t, 1, 8)
	q, _, err := r.Recover(0, 8, 60000)
	must(t, err)
	q.Take(1)
	q.Done(1)
	q.Seal()
	q.Published(60001)
	for _, used := range []uint16{0, 5, 60001} {
		if _, heads, err := r.Recover(0, 8, used); err != nil || len(heads) != 0 {
			t.Errorf("used index %d: %v, %v", used, heads, err)
		}
		if got := u16(r.mapped, atUsedIdx); got != used {
			t.Errorf("noted %d, not %d", got, used)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	r := newRegion(t, 1, 8)
	q, _, err := r.Recover(0, 8, 0)
	must(t, err)
	used := uint16(0)
	if n := testing.AllocsPerRun(100, func() {
		for h := range uint16(8) {
			q.Take(h)
		}
		for h := range uint16(8) {
			q.Done(h)
		}
		used += 8
		q.Seal()
		q.Published(used)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	var none *Queue
	none.Take(1)
	none.Done(1)
	none.Seal()
	none.Published(1)
}

// FuzzRecover: whatever a front-end hands over, recovery is an error or a list of
// different chains of the ring, and the region that it leaves behind is in order.
func FuzzRecover(f *testing.F) {
	const size, n = 8, 16 + 8*16
	f.Add(make([]byte, n), uint16(0))
	valid := make([]byte, n)
	valid[atVersion], valid[atDescNum], valid[atUsedIdx], valid[atLastBatchHead] = 1, size, 7, 3
	valid[atDesc+3*descBytes], valid[atDesc+5*descBytes], valid[atDesc+5*descBytes+inCounter] = 1, 1, 9
	f.Add(valid, uint16(7))
	f.Add(valid, uint16(8))
	r := newRegion(f, 1, size)
	f.Fuzz(func(t *testing.T, content []byte, used uint16) {
		clear(r.mapped)
		copy(r.mapped[:n], content)
		q, heads, err := r.Recover(0, size, used)
		if err != nil {
			return
		}
		seen := map[uint16]bool{}
		for _, h := range heads {
			if h >= size || seen[h] {
				t.Fatalf("in flight: %v", heads)
			}
			seen[h] = true
		}
		for h := range uint16(size) {
			if !seen[h] {
				q.Take(h)
			}
		}
		_, all, err := r.Recover(0, size, used)
		if err != nil || len(all) != size || q.counter >= size && !slices.Equal(all[:len(heads)], heads) {
			t.Fatalf("%v in flight, and all the others: %v, %v", heads, all, err)
		}
	})
}

// TestMemo: what one back-end noted the next one reads; a region that has no memo gets
// none.
func TestMemo(t *testing.T) {
	d, fd, err := Create(2, 8, 7)
	must(t, err)
	for _, want := range []uint16{7, 9, 0xffff} {
		r := reopen(t, d, fd)
		if v, ok := r.Memo(); v != want || !ok {
			t.Errorf("memo %d, %v, want %d", v, ok, want)
		}
		if want == 7 {
			r.SetMemo(9)
		} else {
			r.SetMemo(0xffff)
		}
		must(t, r.Close())
	}
	if empty := make([]byte, Bytes(2, 8)); !bytes.Equal(content(t, fd)[:len(empty)], empty) {
		t.Error("the memo is written over the queues")
	}
	must(t, unix.Close(fd))

	fd = memfd(t, 8192, unix.MFD_ALLOW_SEALING)
	defer unix.Close(fd)
	for _, size := range []uint64{384, 391, 392, 8192} {
		r := reopen(t, protocol.Inflight{MmapSize: size, NumQueues: 2, QueueSize: 8}, fd)
		r.SetMemo(5)
		if _, ok := r.Memo(); ok {
			t.Errorf("a memo in a region of %d bytes that was not made here", size)
		}
		must(t, r.Close())
	}
	if !bytes.Equal(content(t, fd), make([]byte, 8192)) {
		t.Error("something was written behind a region that was not made here")
	}
}

func reopen(t *testing.T, d protocol.Inflight, fd int) *Region {
	t.Helper()
	own, err := unix.Dup(fd)
	must(t, err)
	r, err := Open(d, own)
	must(t, err)
	return r
}

func content(t *testing.T, fd int) []byte {
	t.Helper()
	b := make([]byte, 8192)
	n, err := unix.Pread(fd, b, 0)
	must(t, err)
	return b[:n]
}
