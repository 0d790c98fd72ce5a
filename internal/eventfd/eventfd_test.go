package eventfd

import (
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func open(t *testing.T) *FD {
	t.Helper()
	e, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func readable(t *testing.T, fd int) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

func mustClear(t *testing.T, e *FD) bool {
	t.Helper()
	had, err := e.Clear()
	if err != nil {
		t.Fatal(err)
	}
	return had
}

func TestSignalAndClear(t *testing.T) {
	e := open(t)
	if readable(t, e.FD()) || mustClear(t, e) {
		t.Fatal("signalled when new")
	}
	for range 3 {
		if err := e.Signal(); err != nil {
			t.Fatal(err)
		}
	}
	if !readable(t, e.FD()) || !mustClear(t, e) {
		t.Fatal("not signalled after Signal")
	}
	if readable(t, e.FD()) || mustClear(t, e) {
		t.Fatal("signalled after Clear")
	}
}

func TestSignalOfFullCounterSucceeds(t *testing.T) {
	e := open(t)
	full := binary.NativeEndian.AppendUint64(nil, math.MaxUint64-1)
	if _, err := unix.Write(e.FD(), full); err != nil {
		t.Fatal(err)
	}
	if err := e.Signal(); err != nil {
		t.Fatal(err)
	}
	if !mustClear(t, e) {
		t.Fatal("full counter reads as not signalled")
	}
}

func TestSignalFromManyGoroutines(t *testing.T) {
	e := open(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				e.Signal()
			}
		})
	}
	wg.Wait()
	if !mustClear(t, e) || mustClear(t, e) {
		t.Fatal("signals of many goroutines are not taken by one Clear")
	}
}

func TestSignalDoesNotAllocate(t *testing.T) {
	e := open(t)
	if n := testing.AllocsPerRun(100, func() { e.Signal(); e.Clear() }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestUseAfterClose(t *testing.T) {
	e, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Signal(); !errors.Is(err, unix.EBADF) {
		t.Fatalf("Signal after Close: %v", err)
	}
}
