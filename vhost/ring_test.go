package vhost_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

// prepareRing does all that starts a ring but the kick and the enabling.
func prepareRing(t testing.TB, d *frontend.Disk, index, base uint32) {
	t.Helper()
	s, q := d.Session, d.Queue(int(index))
	must(t, s.SetVringNum(index, uint32(q.Ring.Size())))
	must(t, s.SetVringBase(index, base))
	must(t, s.SetVringAddr(q.Ring.Addr(index)))
	must(t, s.SetVringErr(uint8(index), q.Err.FD()))
	must(t, s.SetVringCall(uint8(index), q.Call.FD()))
	must(t, s.SetVringKick(uint8(index), q.Kick.FD()))
}

func share(t testing.TB, d *frontend.Disk) {
	t.Helper()
	must(t, d.Session.SetFeatures(d.Features))
	table, fds, err := d.Memory.Table()
	must(t, err)
	must(t, d.Session.SetMemTable(table, fds...))
}

// stays checks that something goes on not to happen for a moment.
func stays(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for range 10 {
		if !cond() {
			t.Fatal(what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestKickBeforeEnableIsNotLost(t *testing.T) {
	dev, fault := newDevice(t)
	d, _ := connect(t, dev, frontend.Options{})
	share(t, d)
	prepareRing(t, d, 0, 0)
	q := d.Queue(0)
	must(t, q.Submit(request(t, q, frontend.TypeOut, 0, 512)))
	must(t, q.Kick.Signal())
	stays(t, "a disabled ring was served", func() bool { return fault.Submitted() == 0 })
	must(t, d.Session.SetVringEnable(0, true)) // and no kick after it
	waitDone(t, q)
}

func TestEnabledRingWaitsForTheFirstKick(t *testing.T) {
	dev, fault := newDevice(t)
	d, _ := connect(t, dev, frontend.Options{})
	share(t, d)
	prepareRing(t, d, 0, 0)
	must(t, d.Session.SetVringEnable(0, true))
	q := d.Queue(0)
	must(t, q.Submit(request(t, q, frontend.TypeOut, 0, 512)))
	stays(t, "a ring was served before its first kick", func() bool { return fault.Submitted() == 0 })
	must(t, q.Kick.Signal())
	waitDone(t, q)
}

func TestDisableKeepsRequestsInTheRing(t *testing.T) {
	dev, fault := newDevice(t)
	d, _ := start(t, dev, frontend.Options{})
	q := d.Queue(0)
	roundTrip(t, q)
	fault.Hold()
	submit(t, q, request(t, q, frontend.TypeOut, 0, 512))
	until(t, "the request", func() bool { return fault.InFlight() == 1 })
	fault.Resume()
	must(t, d.Session.SetVringEnable(0, false))
	if fault.InFlight() != 0 {
		t.Error("a request is in flight in a disabled ring")
	}
	waitDone(t, q)
	n := fault.Submitted()
	submit(t, q, request(t, q, frontend.TypeOut, 0, 512))
	must(t, q.Kick.Signal())
	stays(t, "a disabled ring was served", func() bool { return fault.Submitted() == n })
	must(t, d.Session.SetVringEnable(0, true))
	waitDone(t, q)
	roundTrip(t, q)
}

func TestFeaturesWithoutProtocolBitEnableAllRings(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := connect(t, dev, frontend.Options{Queues: queues})
	share(t, d)
	must(t, d.Session.SetFeatures(d.Features&^(1<<protocol.FeatureProtocolFeatures)))
	for i := range d.Queues() {
		prepareRing(t, d, uint32(i), 0)
		must(t, d.Queue(i).Kick.Signal())
		roundTrip(t, d.Queue(i))
	}
}

func TestFeaturesEnableRingsThatWereKickedBefore(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := connect(t, dev, frontend.Options{})
	share(t, d)
	prepareRing(t, d, 0, 0)
	q := d.Queue(0)
	must(t, q.Submit(request(t, q, frontend.TypeIn, 0, 512)))
	must(t, q.Kick.Signal())
	alive(t, d.Session)
	must(t, d.Session.SetFeatures(d.Features&^(1<<protocol.FeatureProtocolFeatures)))
	waitDone(t, q)
}

func TestGetVringBaseDrains(t *testing.T) {
	dev, fault := newDevice(t)
	d, _ := start(t, dev, frontend.Options{})
	q := d.Queue(0)
	fault.Hold()
	for range 5 {
		submit(t, q, request(t, q, frontend.TypeOut, 0, 512))
	}
	until(t, "the requests", func() bool { return fault.InFlight() == 5 })
	base := make(chan uint32)
	go func() {
		b, err := d.Session.GetVringBase(0)
		if err != nil {
			b = 1 << 20
		}
		base <- b
	}()
	select {
	case <-base:
		t.Fatal("answered with requests in flight")
	case <-time.After(20 * time.Millisecond):
	}
	fault.Resume()
	if b := <-base; b != 5 {
		t.Fatalf("base %d", b)
	}
	done := make([]*frontend.Request, 8)
	if n, err := q.Poll(done); n != 5 || err != nil {
		t.Fatalf("%d requests done, %v", n, err)
	}
	_, err := q.Call.Clear()
	must(t, err)

	if q.Ring.Used.Bytes[virtqueue.AvailEventOffset(q.Ring.Size())] != 5 {
		t.Error("a stopped ring does not ask for a kick")
	}

	// From now on nothing is written or signalled, whatever the driver does.
	n, used := fault.Submitted(), string(q.Ring.Used.Bytes)
	must(t, q.Submit(request(t, q, frontend.TypeOut, 0, 512)))
	must(t, q.Kick.Signal())
	must(t, d.Session.SetVringEnable(0, true))
	stays(t, "a stopped ring was served", func() bool {
		return fault.Submitted() == n && string(q.Ring.Used.Bytes) == used && !readable(t, q.Call.FD(), 0)
	})

	prepareRing(t, d, 0, 5)
	waitDone(t, q)
	roundTrip(t, q)
}

func TestStopAndStartAgain(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := start(t, dev, frontend.Options{Queues: 2, MemorySlots: true})
	for range 3 {
		for _, q := range d.Queues() {
			roundTrip(t, q)
		}
		must(t, d.Stop())
		must(t, d.Start())
	}
}

func TestIndexesWrapAround(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := connect(t, dev, frontend.Options{QueueSize: 8})
	share(t, d)
	q := d.Queue(0)
	q.Ring.Reset(65530)
	prepareRing(t, d, 0, 65530)
	must(t, d.Session.SetVringEnable(0, true))
	must(t, q.Kick.Signal())
	r := request(t, q, frontend.TypeIn, 0, 512)
	for range 20 {
		must(t, q.Do(r))
	}
	if b, err := d.Session.GetVringBase(0); b != 14 || err != nil {
		t.Fatalf("base %d, %v", b, err)
	}
}

func TestRefusedRingSettings(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := connect(t, dev, frontend.Options{})
	s := d.Session
	share(t, d)
	for _, n := range []uint32{0, 3, 100, 512, 32768, 65536, 1 << 31} {
		wantRefused(t, "size", s.SetVringNum(0, n))
	}
	must(t, s.SetVringNum(0, 128))
	wantRefused(t, "base", s.SetVringBase(0, 65536))
	wantRefused(t, "enable", s.Set(protocol.SetVringEnable, protocol.VringState{Num: 2}.Append(nil)))
	for _, i := range []uint32{queues, 255, 256, 1 << 31} {
		wantRefused(t, "ring", s.SetVringNum(i, 128))
		wantRefused(t, "ring", s.SetVringBase(i, 0))
		wantRefused(t, "ring", s.SetVringEnable(i, true))
		a := *d.Queue(0).Ring.Addr(i)
		wantRefused(t, "ring", s.SetVringAddr(&a))
	}
	wantRefused(t, "ring", s.SetVringKick(queues, d.Queue(0).Kick.FD()))
	wantRefused(t, "ring", s.SetVringCall(255, -1))
	good := d.Queue(0).Ring.Addr(0)
	for _, change := range []func(*protocol.VringAddr){
		func(a *protocol.VringAddr) { a.Descriptor += 8 },
		func(a *protocol.VringAddr) { a.Available++ },
		func(a *protocol.VringAddr) { a.Used += 2 },
		func(a *protocol.VringAddr) { a.Descriptor = 0 }, // a guest-physical address
		func(a *protocol.VringAddr) { a.Used = 1<<64 - 8 },
		func(a *protocol.VringAddr) { a.Available = d.Memory.Regions[0].UserAddr + d.Memory.Regions[0].Size - 4 },
		func(a *protocol.VringAddr) { a.Flags = 2 },
	} {
		bad := *good
		change(&bad)
		wantRefused(t, "address", s.SetVringAddr(&bad))
	}
	must(t, s.SetVringAddr(good))
	alive(t, s)
}

func TestStartedRingKeepsItsShape(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := start(t, dev, frontend.Options{})
	roundTrip(t, d.Queue(0))
	wantRefused(t, "size", d.Session.SetVringNum(0, 64))
	wantRefused(t, "base", d.Session.SetVringBase(0, 0))
	other := *d.Queue(0).Ring.Addr(0)
	other.Used += 4
	wantRefused(t, "address", d.Session.SetVringAddr(&other))
	must(t, d.Session.SetVringAddr(d.Queue(0).Ring.Addr(0)))
	roundTrip(t, d.Queue(0))
}

func TestRingBeforeMemory(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := connect(t, dev, frontend.Options{})
	must(t, d.Session.SetFeatures(d.Features))
	prepareRing(t, d, 0, 0)
	must(t, d.Session.SetVringEnable(0, true))
	share(t, d)
	must(t, d.Queue(0).Kick.Signal())
	roundTrip(t, d.Queue(0))
}

func TestPolledRing(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := connect(t, dev, frontend.Options{Polling: true})
	share(t, d)
	prepareRing(t, d, 0, 0)
	must(t, d.Session.SetVringKick(0, -1))
	must(t, d.Session.SetVringCall(0, -1))
	must(t, d.Session.SetVringEnable(0, true))
	for range 10 {
		roundTrip(t, d.Queue(0))
	}
	if _, err := d.Session.GetVringBase(0); err != nil {
		t.Fatal(err)
	}
}

func TestCallDescriptorMayChange(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := start(t, dev, frontend.Options{})
	q := d.Queue(0)
	roundTrip(t, q)
	must(t, d.Session.SetVringCall(0, -1))
	submit(t, q, request(t, q, frontend.TypeOut, 0, 512))
	until(t, "the request", func() bool { return q.Ring.Pending() == 1 })
	_, err := q.Call.Clear()
	must(t, err)
	// What was completed with nobody to tell is announced to the new one.
	must(t, d.Session.SetVringCall(0, q.Call.FD()))
	if !readable(t, q.Call.FD(), patience) {
		t.Fatal("the new call descriptor is not signalled")
	}
	waitDone(t, q)
	must(t, d.Session.SetVringKick(0, q.Kick.FD()))
	roundTrip(t, q)
}

func TestPipesAsNotifiers(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := connect(t, dev, frontend.Options{Polling: true})
	share(t, d)
	prepareRing(t, d, 0, 0)
	var kick, call [2]int
	must(t, unix.Pipe2(kick[:], unix.O_CLOEXEC))
	must(t, unix.Pipe2(call[:], unix.O_CLOEXEC))
	must(t, d.Session.SetVringKick(0, kick[0]))
	must(t, d.Session.SetVringCall(0, call[1]))
	must(t, d.Session.SetVringEnable(0, true))
	unix.Close(kick[0])
	unix.Close(call[1])
	q := d.Queue(0)
	r := request(t, q, frontend.TypeIn, 0, 512)
	for range 3 {
		// The driver asks for a notification and then spins.
		must(t, q.Submit(r))
		q.Ring.RequestCall()
		_, err := unix.Write(kick[1], make([]byte, 8))
		must(t, err)
		var b [16]byte
		if n, err := unix.Read(call[0], b[:]); n != 8 || err != nil {
			t.Fatalf("notification of %d bytes, %v", n, err)
		}
		waitDone(t, q)
	}
	// The front-end closes its ends: the session must not spin or fall over.
	unix.Close(kick[1])
	unix.Close(call[0])
	alive(t, d.Session)
	if b, err := d.Session.GetVringBase(0); b != 3 || err != nil {
		t.Fatalf("base %d, %v", b, err)
	}
}

func TestFullCallPipeDoesNotBlock(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := connect(t, dev, frontend.Options{Polling: true})
	share(t, d)
	prepareRing(t, d, 0, 0)
	var call [2]int
	must(t, unix.Pipe2(call[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	defer unix.Close(call[0])
	for {
		if _, err := unix.Write(call[1], make([]byte, 4096)); err == unix.EAGAIN {
			break
		}
	}
	must(t, unix.SetNonblock(call[1], false))
	must(t, d.Session.SetVringCall(0, call[1]))
	unix.Close(call[1])
	must(t, d.Session.SetVringEnable(0, true))
	must(t, d.Queue(0).Kick.Signal())
	for range 3 {
		d.Queue(0).Ring.RequestCall()
		roundTrip(t, d.Queue(0))
	}
}

// TestBrokenRing: the error descriptor is signalled, the session and the other ring
// live, and the ring can be set up again.
func TestBrokenRing(t *testing.T) {
	for name, spoil := range map[string]func(d *frontend.Disk, q *frontend.Queue){
		"head outside the table": func(_ *frontend.Disk, q *frontend.Queue) { q.Ring.AddHead(200) },
		"index too far ahead":    func(_ *frontend.Disk, q *frontend.Queue) { q.Ring.SetAvailIndex(q.Ring.AvailIndex() + 1000) },
		"loop": func(_ *frontend.Disk, q *frontend.Queue) {
			q.Ring.PutDesc(3, virtqueue.Desc{Len: 0, Flags: virtqueue.DescNext, Next: 3})
			q.Ring.AddHead(3)
		},
		"no status": func(d *frontend.Disk, q *frontend.Queue) {
			q.Ring.PutDesc(3, virtqueue.Desc{Addr: 0, Len: 16})
			q.Ring.AddHead(3)
		},
		"address outside memory": func(d *frontend.Disk, q *frontend.Queue) {
			q.Ring.PutDesc(3, virtqueue.Desc{Addr: 1 << 50, Len: 16, Flags: virtqueue.DescWrite})
			q.Ring.AddHead(3)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dev, fault := newDevice(t)
			d, _ := start(t, dev, frontend.Options{Queues: 2})
			q := d.Queue(0)
			roundTrip(t, q)
			fault.Hold()
			submit(t, q, request(t, q, frontend.TypeOut, 0, 512))
			until(t, "the request", func() bool { return fault.InFlight() == 1 })
			spoil(d, q)
			q.Ring.Publish()
			must(t, q.Kick.Signal())
			if !readable(t, q.Err.FD(), patience) {
				t.Fatal("error descriptor is not signalled")
			}
			fault.Resume()
			waitDone(t, q) // what was in flight completes
			roundTrip(t, d.Queue(1))
			base, err := d.Session.GetVringBase(0)
			must(t, err)
			if base < 2 || base > 3 {
				t.Errorf("base %d", base)
			}
			q.Ring.Reset(0)
			prepareRing(t, d, 0, 0)
			must(t, q.Kick.Signal())
			roundTrip(t, q)
		})
	}
}

// A chain with a status but no whole header is answered.
func TestShortHeaderIsAnswered(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := start(t, dev, frontend.Options{})
	q := d.Queue(0)
	b, err := d.Memory.Alloc(64, 64)
	must(t, err)
	for _, readable := range [][]frontend.Segment{nil, {b.Part(0, 15).Segment()}} {
		status := b.Part(32, 1)
		status.Bytes[0] = 0xff
		_, err := q.Ring.Add(append(readable, status.Segment()), len(readable))
		must(t, err)
		q.Ring.Publish()
		must(t, q.Kick.Signal())
		until(t, "the answer", func() bool { return q.Ring.Pending() == 1 })
		used := make([]frontend.Used, 1)
		_, err = q.Ring.Poll(used)
		must(t, err)
		if status.Bytes[0] != frontend.StatusIOErr || used[0].Len != 1 {
			t.Errorf("status %d, %d bytes", status.Bytes[0], used[0].Len)
		}
	}
}
