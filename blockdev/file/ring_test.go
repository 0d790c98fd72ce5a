package file

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/internal/uring"
)

// refused is a ring whose kernel is out of memory two times of three.
type refused struct {
	kernelRing
	calls int
}

func (r *refused) Submit() error {
	if r.calls++; r.calls%3 != 0 {
		return nil
	}
	return r.kernelRing.Submit()
}

func uringDevice(t *testing.T, size int64) *Device {
	t.Helper()
	needEngine(t, EngineUring)
	d := open(t, image(t, size), Options{Engine: EngineUring, AlignedMemory: true, Direct: DirectOff})
	d.ringEntries = 2
	return d
}

// TestRefusedSubmissionsAreNotLost: what the kernel does not take goes later, also
// when no completion is left to wake anybody.
func TestRefusedSubmissionsAreNotLost(t *testing.T) {
	d := uringDevice(t, 1<<20)
	const depth = 16
	q := openQueue(t, d, depth)
	eng := q.(*queue).eng.(*ring)
	eng.ring = &refused{kernelRing: eng.ring}
	drv := blockdevtest.NewDriver(t, q, depth)
	want := blockdevtest.Noise(1, depth*4096)
	got := make([]byte, len(want))
	for _, batch := range []struct {
		op   blockdev.Op
		data []byte
	}{{blockdev.Write, want}, {blockdev.Read, got}} {
		var reqs []*blockdev.Request
		for at := 0; at < len(want); at += 4096 {
			reqs = append(reqs, rw(batch.op, int64(at), batch.data[at:at+4096]))
		}
		drv.Must(reqs...)
		drv.Must(&blockdev.Request{Op: blockdev.Flush})
	}
	if !bytes.Equal(got, want) {
		t.Error("the device differs from what was written")
	}
}

// late is a ring whose completions nobody sees before release is closed.
type late struct {
	kernelRing
	release chan struct{}
	closed  bool
}

func (l *late) Peek(dst []uring.CQE) (int, error) {
	select {
	case <-l.release:
		return l.kernelRing.Peek(dst)
	default:
		return 0, nil
	}
}

func (l *late) Close() error {
	l.closed = true
	return l.kernelRing.Close()
}

// TestCloseWaitsForCallsInFlight: after Close the kernel touches no buffer any more.
// A call that it has not taken is never made.
func TestCloseWaitsForCallsInFlight(t *testing.T) {
	d := uringDevice(t, 1<<20)
	q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 4})
	if err != nil {
		t.Fatal(err)
	}
	eng := q.(*queue).eng.(*ring)
	l := &late{kernelRing: eng.ring, release: make(chan struct{})}
	eng.ring = l
	q.Submit(rw(blockdev.Write, 0, make([]byte, 4096)), rw(blockdev.Read, 0, make([]byte, 4096)))
	q.Push()
	q.Submit(rw(blockdev.Read, 4096, make([]byte, 4096)))
	closed := make(chan error)
	go func() { closed <- q.Close() }()
	select {
	case <-closed:
		t.Fatal("closed with calls in flight")
	case <-time.After(20 * time.Millisecond):
	}
	if l.closed {
		t.Error("the ring went before its calls")
	}
	close(l.release)
	if err := <-closed; err != nil || !l.closed {
		t.Fatal(err)
	}
}

// broken is a ring that the kernel does not know any more.
type broken struct{ kernelRing }

func (broken) Submit() error                     { return unix.EBADF }
func (broken) Peek(dst []uring.CQE) (int, error) { return 0, unix.EBADR }

func TestBrokenRingPanics(t *testing.T) {
	d := uringDevice(t, 1<<20)
	q := openQueue(t, d, 1)
	eng := q.(*queue).eng.(*ring)
	eng.ring = broken{eng.ring}
	for errno, use := range map[unix.Errno]func(){
		unix.EBADF: func() { q.Submit(rw(blockdev.Read, 0, make([]byte, 512))); q.Push() },
		unix.EBADR: func() { q.Poll(nil) },
	} {
		err := recovered(use)
		if !errors.Is(err, errno) || !strings.Contains(fmt.Sprint(err), "io_uring queue") {
			t.Errorf("%v: panic with %v", errno, err)
		}
	}
}

func recovered(f func()) (err error) {
	defer func() { err, _ = recover().(error) }()
	f()
	return nil
}

func TestMoreThanTheDepth(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		o.AlignedMemory = true
		o.Direct = DirectOff
		drv := drive(t, open(t, image(t, 1<<20), o), 2)
		var reqs []*blockdev.Request
		for range 5 {
			reqs = append(reqs, rw(blockdev.Read, 0, make([]byte, 512)))
		}
		drv.Run(reqs...)
		for i, r := range reqs {
			if want := i >= 2; (r.Err == unix.EAGAIN) != want || (r.Err == nil) == want {
				t.Errorf("request %d: %v", i, r.Err)
			}
		}
	})
}
