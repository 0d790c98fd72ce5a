package vhost_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/vhost"
	"sealblk/vhost/frontend"
	"sealblk/vhost/inflight"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

// orphan is a disk whose back-end has taken requests and died: the test plays that one,
// with a region of its own.
type orphan struct {
	*frontend.Disk
	q      *frontend.Queue
	region protocol.Inflight
	fd     int
	dead   *inflight.Queue
}

func newOrphan(t *testing.T, dev vhost.Device) *orphan {
	t.Helper()
	d, _ := connect(t, dev, frontend.Options{QueueSize: 16})
	region, fd, err := inflight.Create(1, 16, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	own, err := unix.Dup(fd)
	must(t, err)
	r, err := inflight.Open(region, own)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	dead, _, err := r.Recover(0, 16, 0)
	must(t, err)
	return &orphan{Disk: d, q: d.Queue(0), region: region, fd: fd, dead: dead}
}

// handOver sets up the next back-end; with the base that QEMU knows, and without a kick.
func (o *orphan) handOver(t *testing.T) {
	t.Helper()
	must(t, o.Session.SetFeatures(o.Features))
	must(t, o.Session.SetInflightFD(o.region, o.fd))
	share(t, o.Disk)
	prepareRing(t, o.Disk, 0, uint32(o.q.Ring.Used.Bytes[2]))
	must(t, o.Session.SetVringEnable(0, true))
}

// A back-end may die with the only kick that a request was announced by.
func TestServedRingNeedsNoKick(t *testing.T) {
	dev, _ := newDevice(t)
	o := newOrphan(t, dev)
	must(t, o.q.Submit(request(t, o.q, frontend.TypeIn, 0, 512)))
	o.handOver(t)
	waitDone(t, o.q)
}

// A back-end may die after it published and before it notified, and with a used index
// of 0 after 65536 requests.
func TestServedRingIsOwedANotification(t *testing.T) {
	dev, _ := newDevice(t)
	o := newOrphan(t, dev)
	o.handOver(t)
	if !readable(t, o.q.Call.FD(), patience) {
		t.Error("the driver is not notified")
	}
}

// TestWriteCacheIsRemembered: a front-end that reconnects to a new process does not
// tell it again that the write cache is off, and its driver sends no flush. A region
// that does not tell is taken for one with the write cache off.
func TestWriteCacheIsRemembered(t *testing.T) {
	for name, c := range map[string]struct {
		on, foreign, want bool
	}{
		"on": {on: true, want: true}, "off": {}, "on, in a region that does not tell": {on: true, foreign: true},
	} {
		t.Run(name, func(t *testing.T) {
			first, _ := newDevice(t)
			d, _ := connect(t, first, frontend.Options{})
			if c.foreign {
				makeForeign(t, d)
			}
			must(t, d.Start())
			must(t, d.SetWriteCache(!c.on))
			must(t, d.SetWriteCache(c.on))
			roundTrip(t, d.Queue(0))

			second, fault := newDevice(t)
			s, _ := pair(t, context.Background(), second)
			must(t, d.Reconnect(s))
			through := make(chan bool, 1)
			fault.OnSubmit(func(r *blockdev.Request) error { through <- r.FUA; return nil })
			must(t, d.Queue(0).Do(request(t, d.Queue(0), frontend.TypeOut, 0, 512)))
			if now, err := d.ReadConfig(); err != nil || (now.Writeback == 1) != c.want || <-through == c.want {
				t.Errorf("write cache %d, %v", now.Writeback, err)
			}
			must(t, d.SetWriteCache(true))
			must(t, d.Queue(0).Do(request(t, d.Queue(0), frontend.TypeOut, 0, 512)))
			if <-through {
				t.Error("the front-end turned the write cache on, and it is off")
			}
		})
	}
}

// A front-end that says it in its new session is believed.
func TestNewerWriteCacheCounts(t *testing.T) {
	first, _ := newDevice(t)
	d, _ := start(t, first, frontend.Options{})
	must(t, d.SetWriteCache(false))
	roundTrip(t, d.Queue(0))
	region, fd := d.InflightFD()
	second, _ := newDevice(t)
	s, _ := pair(t, context.Background(), second)
	must(t, s.SetProtocolFeatures(d.ProtocolFeatures))
	must(t, s.SetConfig(32, protocol.ConfigWritable, []byte{1}))
	must(t, s.SetInflightFD(region, fd))
	b := make([]byte, 1)
	must(t, s.GetConfig(32, b))
	if b[0] != 1 {
		t.Error("the region counted")
	}
}

// makeForeign puts a region without our memo in the place of a disk's.
func makeForeign(t *testing.T, d *frontend.Disk) {
	t.Helper()
	must(t, d.Start())
	must(t, d.Stop())
	region, fd := d.InflightFD()
	_, err := unix.Pwrite(fd, make([]byte, 8), int64(region.MmapSize)-8)
	must(t, err)
}

func TestRequestsOfADeadBackendComeFirst(t *testing.T) {
	dev, fault := newDevice(t)
	o := newOrphan(t, dev)
	var requests []*frontend.Request
	for i := range 4 {
		r := request(t, o.q, frontend.TypeOut, 0, 512)
		copy(r.Data, bytes.Repeat([]byte{byte(i + 1)}, 512))
		must(t, o.q.Submit(r))
		requests = append(requests, r)
	}
	// Each request has one descriptor, the head, in the order of submission. The third
	// was returned: the driver has it, and the dead one had not noted that any more.
	for head := range uint16(3) {
		o.dead.Take(head)
	}
	o.dead.Done(2)
	o.dead.Seal()
	used := o.q.Ring.Used.Bytes
	used[4], used[2] = 2, 1
	fault.Hold()
	o.handOver(t)
	until(t, "the requests", func() bool { return fault.InFlight() == 3 })
	fault.Resume()
	seen := map[*frontend.Request]bool{}
	done := make([]*frontend.Request, 4)
	for len(seen) < 4 {
		n, err := o.q.Wait(done)
		must(t, err)
		for _, r := range done[:n] {
			if seen[r] {
				t.Fatal("a request was returned twice")
			}
			seen[r] = true
		}
	}
	if fault.Submitted() != 3 {
		t.Errorf("%d requests were carried out, want all but the one that was returned", fault.Submitted())
	}
	for _, r := range append(requests[:2:2], requests[3]) {
		must(t, r.Err())
	}
}

// A stop is answered when nothing is in flight, what the dead one took included.
func TestStopFinishesWhatADeadBackendTook(t *testing.T) {
	dev, fault := newDevice(t)
	o := newOrphan(t, dev)
	for range 3 {
		must(t, o.q.Submit(request(t, o.q, frontend.TypeOut, 0, 512)))
	}
	o.dead.Take(0)
	o.dead.Take(1)
	fault.Hold()
	o.handOver(t)
	until(t, "the requests", func() bool { return fault.InFlight() >= 2 })
	fault.Resume()
	base, err := o.Session.GetVringBase(0)
	must(t, err)
	if n := o.q.Ring.Pending(); n < 2 || base != uint32(n) {
		t.Errorf("stopped at %d with %d requests done", base, n)
	}
}

// Memory and features change while requests are in flight: the ring's worker is another
// one after that, and takes nothing up twice.
func TestChangesWithinASessionTakeNothingUp(t *testing.T) {
	dev, fault := newDevice(t)
	d, _ := start(t, dev, frontend.Options{})
	q := d.Queue(0)
	roundTrip(t, q)
	for range 3 {
		n := fault.Submitted()
		fault.Hold()
		for range 5 {
			submit(t, q, request(t, q, frontend.TypeOut, 0, 512))
		}
		until(t, "the requests", func() bool { return fault.InFlight() == 5 })
		fault.Resume()
		share(t, d)
		for range 5 {
			waitDone(t, q)
		}
		roundTrip(t, q)
		if got := fault.Submitted() - n; got != 6 {
			t.Fatalf("%d requests were carried out, 6 were made", got)
		}
	}
	must(t, d.Stop())
	must(t, d.Start())
	roundTrip(t, q)
}

func TestRefusedInflightRegions(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := start(t, dev, frontend.Options{Queues: 2})
	desc, fd := d.InflightFD()
	wantRefused(t, "a region for rings that have started", d.Session.SetInflightFD(desc, fd))
	must(t, d.Stop())
	must(t, d.Session.SetInflightFD(desc, fd))
	for name, change := range map[string]func(*protocol.Inflight){
		"more queues than the device has":  func(i *protocol.Inflight) { i.NumQueues = queues + 1 },
		"larger queues than the device's":  func(i *protocol.Inflight) { i.QueueSize = 512 },
		"a region longer than its file":    func(i *protocol.Inflight) { i.MmapSize = 1 << 30 },
		"a region shorter than its queues": func(i *protocol.Inflight) { i.MmapSize = 64 },
		"an offset within a page":          func(i *protocol.Inflight) { i.MmapOffset = 64 },
		"no queues":                        func(i *protocol.Inflight) { i.NumQueues = 0 },
	} {
		bad := desc
		change(&bad)
		wantRefused(t, name, d.Session.SetInflightFD(bad, fd))
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(null)
	wantRefused(t, "a file that is no memory", d.Session.SetInflightFD(desc, null))
	must(t, d.Start())
	roundTrip(t, d.Queue(1))
}

// A region that lies keeps its ring from starting, and nothing else.
func TestLyingInflightRegion(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := start(t, dev, frontend.Options{Queues: 2})
	for _, q := range d.Queues() {
		roundTrip(t, q)
	}
	must(t, d.Stop())
	_, fd := d.InflightFD()
	whole := make([]byte, 2*inflight.QueueBytes(128))
	_, err := unix.Pread(fd, whole, 0)
	must(t, err)
	spoilt := bytes.Clone(whole)
	spoilt[16] = 7 // the mark of descriptor 0
	_, err = unix.Pwrite(fd, spoilt, 0)
	must(t, err)
	wantRefused(t, "start with a region that lies", d.Start())
	if !readable(t, d.Queue(0).Err.FD(), patience) {
		t.Error("the error descriptor of the ring is not signalled")
	}
	alive(t, d.Session)
	for _, q := range d.Queues() {
		_, err = d.Session.GetVringBase(uint32(q.Index()))
		must(t, err)
	}
	_, err = unix.Pwrite(fd, whole, 0)
	must(t, err)
	must(t, d.Start())
	for _, q := range d.Queues() {
		roundTrip(t, q)
	}
}

// Who does not negotiate the region is served without it.
func TestWithoutInflightRegion(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := start(t, dev, frontend.Options{WithoutProtocol: 1 << protocol.ProtocolInflightShmFD})
	if _, fd := d.InflightFD(); fd >= 0 {
		t.Error("there is a region")
	}
	roundTrip(t, d.Queue(0))
}

// A disk goes on with the same back-end after its connection was lost.
func TestReconnect(t *testing.T) {
	dev, _ := newDevice(t)
	socket := serve(t, dev)
	d := openDisk(t, socket)
	t.Cleanup(func() { closeDisk(d) })
	roundTrip(t, d.Queue(0))
	for range 3 {
		must(t, d.Session.Close())
		r := request(t, d.Queue(0), frontend.TypeIn, 0, 512)
		must(t, d.Queue(0).Submit(r))
		must(t, d.ReconnectTo(context.Background(), socket))
		waitDone(t, d.Queue(0))
		roundTrip(t, d.Queue(0))
	}
}

// FuzzInflight hands over regions with any content, for a ring with requests in it, to a
// back-end with a disk behind it. It refuses the region or the ring, or reports the ring
// as broken, or goes on; a stop is answered, and the session lives.
func FuzzInflight(f *testing.F) {
	const size = 16
	dev, _ := newDevice(f)
	s, _ := pair(f, context.Background(), dev)
	d, err := frontend.Connect(s, frontend.Options{Timeout: patience, QueueSize: size})
	must(f, err)
	f.Cleanup(func() { closeDisk(d) })
	share(f, d)
	region, fd, err := inflight.Create(1, size, 0)
	must(f, err)
	f.Cleanup(func() { unix.Close(fd) })
	q := d.Queue(0)
	first, second := request(f, q, frontend.TypeIn, 0, 512), request(f, q, frontend.TypeOut, 8, 512)

	content := make([]byte, inflight.QueueBytes(size))
	f.Add(content, uint8(0), uint8(2))
	content[8], content[10], content[16], content[32], content[40] = 1, size, 1, 1, 1
	f.Add(content, uint8(0), uint8(2))
	f.Add(content, uint8(1), uint8(2))
	f.Fuzz(func(t *testing.T, content []byte, used, avail uint8) {
		whole := make([]byte, region.MmapSize)
		copy(whole, content)
		_, err := unix.Pwrite(fd, whole, 0)
		must(t, err)
		q.Ring.Reset(0)
		for _, r := range []*frontend.Request{first, second} {
			_ = q.Submit(r) // what is lost with the reset before is the queue's affair
		}
		q.Ring.SetAvailIndex(uint16(avail % 3))
		q.Ring.Publish()
		q.Ring.Used.Bytes[virtqueue.UsedIdxOffset] = used
		err = s.SetInflightFD(region, fd)
		if err == nil {
			prepareRing(t, d, 0, uint32(used))
			must(t, q.Kick.Signal())
			err = s.SetVringEnable(0, true)
		}
		if err != nil && !errors.Is(err, frontend.ErrRefused) {
			t.Fatal(err)
		}
		if err := s.SetVringEnable(0, false); err != nil {
			t.Fatal(err)
		}
		_, err = s.GetVringBase(0)
		must(t, err)
		for _, e := range []interface{ Clear() (bool, error) }{q.Err, q.Call, q.Kick} {
			_, err := e.Clear()
			must(t, err)
		}
	})
}
