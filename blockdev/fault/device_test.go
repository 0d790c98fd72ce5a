package fault_test

import (
	"bytes"
	"errors"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/fault"
	"sealblk/blockdev/memory"
)

var errBad = errors.New("bad medium")

// faulty opens a fault.Device with a driver on one queue of it.
func faulty(t *testing.T, opts fault.Options) (*fault.Device, *blockdevtest.Driver) {
	t.Helper()
	f := fault.New(open(t, 1<<20, memory.Options{}), opts)
	q, err := f.OpenQueue(blockdev.QueueConfig{Depth: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(q.Close(), f.Close()); err != nil {
			t.Error(err)
		}
	})
	return f, blockdevtest.NewDriver(t, q, 8)
}

func writes(n int) (reqs []*blockdev.Request) {
	for i := range n {
		data := bytes.Repeat([]byte{byte(i + 1)}, 4096)
		reqs = append(reqs, &blockdev.Request{Op: blockdev.Write, Offset: int64(i) * 4096, Length: 4096, Buffers: [][]byte{data}})
	}
	return reqs
}

func TestFaultFailsTheNth(t *testing.T) {
	f, d := faulty(t, fault.Options{})
	f.FailNth(3, errBad)
	reqs := writes(5)
	d.Run(reqs...)
	for i, r := range reqs {
		if errors.Is(r.Err, errBad) != (i == 2) {
			t.Errorf("request %d: %v", i, r.Err)
		}
	}
	if got := d.Read(2*4096, 4096); got[0] != 0 {
		t.Errorf("the failed write had an effect")
	}
	if n := f.Submitted(); n != 6 {
		t.Errorf("%d requests counted, want 6", n)
	}
}

func TestFaultCutsShort(t *testing.T) {
	f, d := faulty(t, fault.Options{})
	f.ShortNth(1)
	if err := d.Do(writes(1)[0]); !errors.Is(err, blockdev.ErrShort) {
		t.Fatalf("got %v", err)
	}
	got := d.Read(0, 4096)
	if got[2047] != 1 || got[2048] != 0 {
		t.Fatalf("a short write left %d, %d around its middle", got[2047], got[2048])
	}
}

func TestFaultHolds(t *testing.T) {
	f, d := faulty(t, fault.Options{Async: true})
	var seen int
	f.OnDone(func(*blockdev.Request) { seen++ })
	f.Hold()
	d.Submit(writes(4)...)
	d.Push()
	if n := d.Reap(); n != 0 || seen != 4 || f.InFlight() != 4 {
		t.Fatalf("held: %d came back, %d done below, %d in flight", n, seen, f.InFlight())
	}
	f.Release(1)
	for d.InFlight() == 4 {
		d.Reap()
	}
	if d.Reap() != 0 || f.InFlight() != 3 {
		t.Fatalf("%d in flight after one was let go", f.InFlight())
	}
	f.Resume()
	d.Finish()
}

func TestFaultShowsAndRefuses(t *testing.T) {
	f, d := faulty(t, fault.Options{})
	f.OnSubmit(func(r *blockdev.Request) error {
		if r.Offset == 4096 {
			return errBad
		}
		return nil
	})
	reqs := writes(2)
	d.Run(reqs...)
	if reqs[0].Err != nil || !errors.Is(reqs[1].Err, errBad) {
		t.Fatalf("got %v, %v", reqs[0].Err, reqs[1].Err)
	}
}
