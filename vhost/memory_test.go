package vhost_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/vhost"
	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
)

// extra is guest memory beside that of a disk.
func extra(t testing.TB, addr uint64, size uint64) frontend.Region {
	t.Helper()
	m, err := frontend.NewMemory(frontend.RegionLayout{GuestAddr: addr, Size: size})
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m.Regions[0]
}

// readTo reads a sector into any guest memory.
func readTo(t testing.TB, q *frontend.Queue, addr uint64) error {
	t.Helper()
	r := request(t, q, frontend.TypeIn, 0, 0)
	r.Segments = []frontend.Segment{{Addr: addr, Len: 512}}
	return q.Do(r)
}

func TestAddedRegionIsSeenByRunningRings(t *testing.T) {
	dev, fault := newDevice(t)
	d, _ := start(t, dev, frontend.Options{Queues: 2})
	for _, q := range d.Queues() {
		roundTrip(t, q)
	}
	_, err := d.Queue(1).WriteAt(make([]byte, 512), 0)
	must(t, err)
	fault.Hold()
	submit(t, d.Queue(0), request(t, d.Queue(0), frontend.TypeOut, 0, 512))
	until(t, "the request", func() bool { return fault.InFlight() == 1 })
	more := extra(t, 1<<40, 1<<20)
	more.Bytes[7] = 0xee
	must(t, d.Session.AddMemReg(more.MemoryRegion, more.FD)) // does not wait for the request
	if fault.InFlight() != 1 {
		t.Error("adding a region drained the ring")
	}
	fault.Resume()
	waitDone(t, d.Queue(0))
	for _, q := range d.Queues() {
		must(t, readTo(t, q, 1<<40))
	}
	if more.Bytes[7] != 0 {
		t.Error("the read did not reach the new region")
	}
}

func TestRemovedRegionIsDrainedFirst(t *testing.T) {
	dev, fault := newDevice(t)
	d, ended := start(t, dev, frontend.Options{})
	q := d.Queue(0)
	more := extra(t, 1<<40, 1<<20)
	must(t, d.Session.AddMemReg(more.MemoryRegion, more.FD))
	fault.Hold()
	r := request(t, q, frontend.TypeIn, 0, 0)
	r.Segments = []frontend.Segment{{Addr: 1 << 40, Len: 512}}
	submit(t, q, r)
	until(t, "the request", func() bool { return fault.InFlight() == 1 })
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Session.RemMemReg(more.MemoryRegion); err != nil {
			t.Errorf("remove: %v", err)
		}
		if fault.InFlight() != 0 {
			t.Error("removed with a request in flight")
		}
	})
	stays(t, "completed by itself", func() bool { return q.Ring.Pending() == 0 })
	fault.Resume()
	wg.Wait()
	waitDone(t, q)
	roundTrip(t, q)
	wantRefused(t, "a region that is gone", d.Session.RemMemReg(more.MemoryRegion))

	// A buffer in it breaks the ring now, and nothing else.
	r.Segments = []frontend.Segment{{Addr: 1 << 40, Len: 512}}
	submit(t, q, r)
	if !readable(t, q.Err.FD(), patience) {
		t.Fatal("error descriptor is not signalled")
	}
	alive(t, d.Session)
	closeDisk(d)
	wantEnd(t, ended, nil)
}

func TestNewTableUnderRunningRings(t *testing.T) {
	dev, fault := newDevice(t)
	d, _ := start(t, dev, frontend.Options{Queues: 2})
	table, fds, err := d.Memory.Table()
	must(t, err)
	q := d.Queue(0)
	for range 3 {
		fault.Hold()
		submit(t, q, request(t, q, frontend.TypeOut, 0, 512))
		until(t, "the request", func() bool { return fault.InFlight() == 1 })
		fault.Resume()
		must(t, d.Session.SetMemTable(table, fds...))
		waitDone(t, q)
		for _, q := range d.Queues() {
			roundTrip(t, q)
		}
	}
	// The new table lacks the rings: refused, they stop, the session lives, and a
	// good table brings them back.
	more := extra(t, 1<<40, 1<<20)
	wantRefused(t, "a table without the rings",
		d.Session.SetMemTable(&protocol.MemoryTable{N: 1, Regions: [8]protocol.MemoryRegion{more.MemoryRegion}}, more.FD))
	if !readable(t, q.Err.FD(), patience) {
		t.Error("error descriptor is not signalled")
	}
	must(t, d.Session.SetMemTable(table, fds...))
	for _, q := range d.Queues() {
		roundTrip(t, q)
	}
}

func TestRefusedMemory(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := start(t, dev, frontend.Options{})
	s := d.Session
	r := extra(t, 1<<40, 1<<20)
	for name, change := range map[string]func(*protocol.MemoryRegion){
		"empty":            func(m *protocol.MemoryRegion) { m.Size = 0 },
		"wraps":            func(m *protocol.MemoryRegion) { m.GuestAddr = 1<<64 - 4096 },
		"offset wraps":     func(m *protocol.MemoryRegion) { m.MmapOffset = 1<<64 - 4096 },
		"overlaps":         func(m *protocol.MemoryRegion) { m.GuestAddr = 0 },
		"overlaps in user": func(m *protocol.MemoryRegion) { m.UserAddr = d.Memory.Regions[0].UserAddr + 4096 },
		"beyond its file":  func(m *protocol.MemoryRegion) { m.Size++ },
		"far beyond":       func(m *protocol.MemoryRegion) { m.Size = 1 << 62 },
	} {
		bad := r.MemoryRegion
		change(&bad)
		wantRefused(t, name, s.AddMemReg(bad, r.FD))
		table := &protocol.MemoryTable{N: 2, Regions: [8]protocol.MemoryRegion{d.Memory.Regions[0].MemoryRegion, bad}}
		wantRefused(t, name, s.SetMemTable(table, d.Memory.Regions[0].FD, r.FD))
	}
	roundTrip(t, d.Queue(0)) // the old memory is still there
	must(t, s.AddMemReg(r.MemoryRegion, r.FD))
	wantRefused(t, "the same again", s.AddMemReg(r.MemoryRegion, r.FD))
	// Some front-ends pass a descriptor when they remove.
	must(t, s.Set(protocol.RemMemReg, (&protocol.SingleRegion{Region: r.MemoryRegion}).Append(nil), r.FD))
	roundTrip(t, d.Queue(0))
}

// A front-end that truncates its memory under us ends its session; the next one is
// served.
func TestTruncatedMemory(t *testing.T) {
	dev, _ := newDevice(t)
	for _, running := range []bool{true, false} {
		s, ended := pair(t, context.Background(), dev)
		d, err := frontend.Connect(s, frontend.Options{Timeout: patience})
		must(t, err)
		share(t, d)
		q := d.Queue(0)
		prepareRing(t, d, 0, 0)
		must(t, s.SetVringEnable(0, true))
		if running {
			must(t, q.Kick.Signal())
			roundTrip(t, q)
		}
		// Nothing of the test may touch guest memory from here on.
		must(t, unix.Ftruncate(d.Memory.Regions[0].FD, 0))
		must(t, q.Kick.Signal())
		if running {
			wantEnd(t, ended, vhost.ErrMemoryFault)
		} else {
			// The ring did not start, which is no reason to end the session.
			if !readable(t, q.Err.FD(), patience) {
				t.Error("error descriptor is not signalled")
			}
			alive(t, s)
		}
		closeDisk(d)
	}
	d, _ := start(t, dev, frontend.Options{})
	roundTrip(t, d.Queue(0))
}

// The fault may come while requests are in flight: they are waited for.
func TestTruncatedMemoryWithRequestsInFlight(t *testing.T) {
	dev, fault := newDevice(t)
	s, ended := pair(t, context.Background(), dev)
	d, err := frontend.OpenSession(s, frontend.Options{Timeout: patience, Layout: []frontend.RegionLayout{
		{Size: 4 << 20}, {GuestAddr: 1 << 40, Size: 1 << 20, File: 1},
	}})
	must(t, err)
	defer closeDisk(d)
	q := d.Queue(0)
	fault.Hold()
	submit(t, q, request(t, q, frontend.TypeOut, 0, 512))
	until(t, "the request", func() bool { return fault.InFlight() == 1 })
	// The header of the next request lies in the file that is cut.
	must(t, unix.Ftruncate(d.Memory.Regions[1].FD, 0))
	b, err := d.Memory.Alloc(16, 16)
	must(t, err)
	_, err = q.Ring.Add([]frontend.Segment{{Addr: 1 << 40, Len: 16}, b.Segment()}, 1)
	must(t, err)
	q.Ring.Publish()
	must(t, q.Kick.Signal())
	select {
	case err := <-ended:
		t.Fatalf("session ended with a request in flight: %v", err)
	default:
	}
	stays(t, "the request went", func() bool { return fault.InFlight() == 1 })
	fault.Resume()
	wantEnd(t, ended, vhost.ErrMemoryFault)
	if fault.InFlight() != 0 {
		t.Error("a request is in flight after the session")
	}
}

func TestManyRegions(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := start(t, dev, frontend.Options{})
	r := extra(t, 1<<40, 4096)
	added := 0
	for i := range uint64(600) {
		next := r.MemoryRegion
		next.GuestAddr, next.UserAddr = 1<<40+i*4096, 1<<50+i*8192
		if err := d.Session.AddMemReg(next, r.FD); errors.Is(err, frontend.ErrRefused) {
			break
		} else {
			must(t, err)
		}
		added++
	}
	if added != 508 {
		t.Fatalf("%d regions beside the first", added)
	}
	// One buffer over three of them.
	q := d.Queue(0)
	req := request(t, q, frontend.TypeIn, 0, 0)
	req.Segments = []frontend.Segment{{Addr: 1<<40 + 4000, Len: 8192}}
	must(t, q.Do(req))
}
