package dirtylog

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sealblk/internal/leaktest"
	"sealblk/vhost/memory"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// file is a log's file as the other side maps it.
func file(t testing.TB, n int) (fd int, b []byte) {
	t.Helper()
	fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, int64(n)); err != nil {
		t.Fatal(err)
	}
	if b, err = unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	return fd, b
}

func open(t testing.TB, fd int, size, offset uint64) *Log {
	t.Helper()
	l, err := Open(fd, size, offset)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestMarks compares with the specification's own words: page = addr / 4096,
// log[page / 8] |= 1 << page % 8. What lies around the log keeps its bytes.
func TestMarks(t *testing.T) {
	const size = 100
	random := rand.New(rand.NewPCG(1, 2))
	for _, offset := range []uint64{0, 1, 2, 3, 8, 4095, 4096, 4096 - size} {
		fd, b := file(t, 3*4096)
		for i := range b {
			b[i] = 0x20
		}
		clear(b[offset : offset+size])
		want := bytes.Clone(b)
		l := open(t, fd, size, offset)
		for range 300 {
			addr := random.Uint64N(size * 8 * PageSize)
			n := random.Uint64N(min(size*8*PageSize-addr, 80*PageSize) + 1)
			if err := l.Mark(addr, n); err != nil {
				t.Fatal(err)
			}
			for a := addr; a < addr+n; a++ {
				page := a / 4096
				want[offset+page/8] |= 1 << (page % 8)
				a |= 4095 // on to the last byte of the page
			}
			if !bytes.Equal(b, want) {
				t.Fatalf("offset %d: after %d bytes at %#x the log is\n% x, want\n% x", offset, n, addr, b[offset:offset+size], want[offset:offset+size])
			}
			if random.IntN(20) == 0 {
				clear(b[offset : offset+size])
				clear(want[offset : offset+size])
			}
		}
	}
}

func TestOutsideIsRefused(t *testing.T) {
	fd, b := file(t, 4096)
	l := open(t, fd, 4, 8)
	const end = 4 * 8 * PageSize
	for _, c := range []struct{ addr, n uint64 }{
		{end, 1}, {end - 1, 2}, {0, end + 1}, {1<<64 - 1, 1}, {1<<64 - 1, 2}, {1 << 63, 1<<63 + 1}, {0, 1<<64 - 1}, {end - PageSize, 1<<64 - end + PageSize},
	} {
		if err := l.Mark(c.addr, c.n); !errors.Is(err, ErrOutside) || l.Covers(c.addr, c.n) {
			t.Errorf("%d bytes at %#x: %v", c.n, c.addr, err)
		}
	}
	if err := l.Mark(1<<63, 0); err != nil {
		t.Errorf("no bytes: %v", err)
	}
	if !bytes.Equal(b, make([]byte, 4096)) {
		t.Error("a refused mark left something")
	}
	if err := l.Mark(0, end); err != nil || !bytes.Equal(b[8:12], []byte{255, 255, 255, 255}) {
		t.Errorf("the whole log: %v, % x", err, b[:16])
	}
}

func TestRefusedLogs(t *testing.T) {
	for _, c := range []struct {
		name         string
		size, offset uint64
		want         error
	}{
		{"empty", 0, 0, ErrEmpty},
		{"longer than its file", 4097, 0, memory.ErrBeyondFile},
		{"offset beyond the file", 1, 4096, memory.ErrBeyondFile},
		{"wraps", 1 << 32, 1<<64 - 1, memory.ErrWraps},
		{"too large for any file", 1 << 63, 0, memory.ErrWraps},
	} {
		fd, _ := file(t, 4096)
		if l, err := Open(fd, c.size, c.offset); !errors.Is(err, c.want) || l != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	unix.Close(p[1])
	if _, err := Open(p[0], 8, 0); !errors.Is(err, ErrFile) {
		t.Errorf("a pipe: %v", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(fd, 8, 0); !errors.Is(err, ErrFile) {
		t.Errorf("a device: %v", err)
	}
}

// TestNoMarkIsLost: many mark while the other side takes marks out and copies: the
// last copy of each page is of its last version.
func TestNoMarkIsLost(t *testing.T) {
	const pages, rounds = 64, 2000
	fd, b := file(t, 4096)
	l := open(t, fd, pages/8, 0)
	var versions, seen [pages]atomic.Uint64
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 7))
			for range rounds {
				page := random.Uint64N(pages)
				versions[page].Add(1) // the write
				if err := l.Mark(page*PageSize, 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	collect := func() {
		for i := range pages / 32 {
			word := (*uint32)(unsafe.Pointer(&b[4*i]))
			for bits, bit := atomic.SwapUint32(word, 0), 0; bits != 0; bits, bit = bits>>1, bit+1 {
				if bits&1 != 0 { // the copy
					seen[32*i+bit].Store(versions[32*i+bit].Load())
				}
			}
		}
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		collect()
	}
	for i := range versions {
		if v, s := versions[i].Load(), seen[i].Load(); v != s {
			t.Errorf("page %d: the last copy is of version %d, it was written %d times", i, s, v)
		}
	}
}

func TestMarkAllocatesNothing(t *testing.T) {
	fd, _ := file(t, 4096)
	l := open(t, fd, 4096, 0)
	if n := testing.AllocsPerRun(100, func() { l.Mark(12345, 1<<20) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
