package bounce

import (
	"bytes"
	"errors"
	"runtime/debug"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/memory"
)

// spy is a transform that notes where it works.
type spy struct {
	toy
	at []*byte
}

func (s *spy) Outgoing(dst, src []byte, offset int64) {
	s.at = append(s.at, &dst[0])
	s.apply(dst, src, offset)
}

func (s *spy) Incoming(dst, src []byte, offset int64, _ []byte) {
	s.at = append(s.at, &src[0])
	s.apply(dst, src, offset)
}

// TestDirect: whole units are transformed where they are stored, others never: a
// unit that is put together there would be seen as it was written.
func TestDirect(t *testing.T) {
	mem := newMemory(t, 1<<20, memory.Options{})
	s := &spy{toy: toy{512}}
	layer := newLayer(t, mem, Config{Unit: 512, Transform: s, WriteZeroes: Store})
	q, err := layer.OpenQueue(blockdev.QueueConfig{Depth: 4})
	if err != nil {
		t.Fatal(err)
	}
	d := blockdevtest.NewDriver(t, q, 4)
	stored := uintptr(unsafe.Pointer(&mem.Bytes()[0]))
	plain := blockdevtest.Noise(5, 4096)
	for _, c := range []struct {
		name   string
		cut    []int
		direct bool
	}{
		{"one buffer", []int{4096}, true},
		{"whole units", []int{512, 0, 1024, 2560}, true},
		{"a unit across two", []int{1000, 3096}, false},
	} {
		for _, op := range []blockdev.Op{blockdev.Write, blockdev.Read} {
			s.at = nil
			data := bytes.Clone(plain)
			if op == blockdev.Read {
				clear(data)
			}
			var buffers [][]byte
			for rest := data; len(c.cut) > len(buffers); {
				n := c.cut[len(buffers)]
				buffers, rest = append(buffers, rest[:n]), rest[n:]
			}
			d.Must(request(op, 8192, buffers...))
			if !bytes.Equal(data, plain) {
				t.Errorf("%s: op %v: other data than was written", c.name, op)
			}
			for _, p := range s.at {
				if direct := uintptr(unsafe.Pointer(p))-stored < 1<<20; direct != c.direct {
					t.Errorf("%s: op %v: the transform works where it is stored: %v", c.name, op, direct)
				}
			}
		}
	}
	if err := errors.Join(q.Close(), layer.Close()); err != nil {
		t.Error(err)
	}
}

// cut is a device whose store lost its second half.
type cut struct {
	*memory.Device
	mem []byte
}

type cutQueue struct {
	blockdev.Queue
	mem []byte
}

func (c cut) OpenQueue(cfg blockdev.QueueConfig) (blockdev.Queue, error) {
	q, err := c.Device.OpenQueue(cfg)
	return cutQueue{q, c.mem}, err
}

func (q cutQueue) View(_ blockdev.Op, offset, n int64) []byte { return q.mem[offset : offset+n] }
func (q cutQueue) Viewed(addr uintptr) bool {
	return addr-uintptr(unsafe.Pointer(&q.mem[0])) < uintptr(len(q.mem))
}

func cutMemory(t *testing.T, size, left int64) []byte {
	t.Helper()
	fd, err := unix.MemfdCreate("cut", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, left); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return mem
}

// TestFaultInTheStore: a store that was cut short fails the request that meets its end
// and no other; a fault in the submitter's memory is not the store's.
func TestFaultInTheStore(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	layer := newLayer(t, cut{newMemory(t, 1<<20, memory.Options{}), cutMemory(t, 1<<20, 1<<19)},
		Config{Unit: 512, Transform: toy{512}, WriteZeroes: Store})
	q, err := layer.OpenQueue(blockdev.QueueConfig{Depth: 4})
	if err != nil {
		t.Fatal(err)
	}
	d := blockdevtest.NewDriver(t, q, 4)
	for _, op := range []blockdev.Op{blockdev.Write, blockdev.Read} {
		lost, kept := request(op, 1<<19-512, make([]byte, 1024)), request(op, 0, make([]byte, 1024))
		d.Run(lost, kept)
		if lost.Err != blockdev.ErrShort || kept.Err != nil {
			t.Errorf("op %v: beyond the end: %v, before it: %v", op, lost.Err, kept.Err)
		}
	}
	gone := cutMemory(t, 4096, 0)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a fault in the submitter's memory went unnoticed")
			}
		}()
		q.Submit(request(blockdev.Read, 0, gone))
	}()
	if err := errors.Join(q.Close(), layer.Close()); err != nil {
		t.Error(err)
	}
}
