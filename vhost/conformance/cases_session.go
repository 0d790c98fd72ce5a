package conformance

import (
	"bytes"
	"slices"
	"time"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
)

var sessionCases = []Case{
	{Kind: House, Rule: "a disabled ring keeps requests and serves them when enabled", Spec: "vhost-user, Ring states", run: disabledRing},
	{Kind: Must, Rule: "a kick before the ring is enabled is not lost", Spec: "vhost-user, Ring states", run: kickBeforeEnable},
	{Kind: Must, Rule: "a ring starts with its first kick", Spec: "vhost-user, Ring states", run: kickAfterEnable},
	{Kind: Must, Rule: "without PROTOCOL_FEATURES rings are enabled at once", Spec: "vhost-user, SET_FEATURES", run: withoutProtocolFeatures},
	{Kind: Must, Rule: "GET_VRING_BASE drains the ring", Spec: "vhost-user, GET_VRING_BASE", run: baseDrains},
	{Kind: Must, Rule: "a stopped device is silent", Spec: "vhost-user, GET_VRING_BASE", run: stoppedIsSilent},
	{Kind: Must, Rule: "a ring goes on where it stopped", Spec: "vhost-user, SET_VRING_BASE", run: goesOn},
	{Kind: Must, Rule: "one ring stops while another runs", Spec: "vhost-user, GET_VRING_BASE", run: stopOne},
}

func disabledRing(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	x.verify(q, 0, random(1, 4096))
	x.must(d.Session.SetVringEnable(0, false))
	r := x.request(q, frontend.TypeIn, 0, 4096)
	x.submit(q, r)
	x.untouched(d, q)
	x.must(d.Session.SetVringEnable(0, true))
	x.drain(q, 1)
	if !x.peer.readOnly() && !bytes.Equal(r.Data, random(1, 4096)) {
		x.errorf("wrong data")
	}
}

func kickBeforeEnable(x *rig) {
	d := x.connect(frontend.Options{})
	q := d.Queue(0)
	x.share(d)
	x.place(d, q, q.Kick.FD(), q.Call.FD())
	x.submit(q, x.read(q, 0))
	x.alive(d.Session) // the kick has been seen, or will be
	x.must(d.Session.SetVringEnable(0, true))
	x.drain(q, 1)
}

func kickAfterEnable(x *rig) {
	d := x.connect(frontend.Options{})
	q := d.Queue(0)
	x.share(d)
	x.place(d, q, q.Kick.FD(), q.Call.FD())
	x.must(d.Session.SetVringEnable(0, true))
	x.submit(q, x.read(q, 0))
	x.drain(q, 1)
}

func withoutProtocolFeatures(x *rig) {
	d := x.connect(frontend.Options{})
	d.Features &^= 1 << protocol.FeatureProtocolFeatures
	x.must(d.Start())
	x.verify(d.Queue(0), 0, random(2, 4096))
}

// batch makes n reads.
func (x *rig) batch(q *frontend.Queue, n int) []*frontend.Request {
	requests := make([]*frontend.Request, n)
	for i := range requests {
		requests[i] = x.request(q, frontend.TypeIn, uint64(8*i), 4096)
	}
	return requests
}

func baseDrains(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	requests := x.batch(q, 64)
	for range 20 {
		x.submit(q, requests...)
		base, err := d.Session.GetVringBase(0)
		x.must(err)
		taken := q.Ring.Pending()
		if want := uint32(q.Ring.UsedIndex()) + uint32(taken); base != want {
			x.fatalf("base is %d after %d completions", base, want)
		}
		x.drain(q, taken)
		// The rest is served by the same ring set up anew.
		x.place(d, q, q.Kick.FD(), q.Call.FD())
		x.must(d.Session.SetVringEnable(0, true))
		x.must(q.Kick.Signal())
		x.drain(q, 64-taken)
	}
}

func stoppedIsSilent(x *rig) {
	d := x.open(frontend.Options{Queues: 2})
	for _, q := range d.Queues() {
		x.verify(q, 0, random(3, 64<<10))
	}
	x.must(d.Stop())
	q := d.Queue(0)
	_, err := q.Call.Clear()
	x.must(err)
	x.submit(q, x.request(q, frontend.TypeIn, 0, 64<<10))
	before := slices.Clone(d.Memory.Regions[0].Bytes[:8<<20])
	x.silent(d, q)
	if !bytes.Equal(before, d.Memory.Regions[0].Bytes[:8<<20]) {
		x.errorf("guest memory changed")
	}
	x.must(d.Start())
	x.drain(q, 1)
}

func goesOn(x *rig) {
	d := x.open(frontend.Options{Queues: 2, QueueSize: 16})
	for i := range 10 {
		for j, q := range d.Queues() {
			x.verify(q, int64(j)<<20, random(i, 4096*(i+1)))
		}
		x.must(d.Stop())
		x.must(d.Start())
	}
}

func stopOne(x *rig) {
	d := x.open(frontend.Options{Queues: 2})
	a, b := d.Queue(0), d.Queue(1)
	x.verify(a, 0, random(4, 4096))
	_, err := d.Session.GetVringBase(0)
	x.must(err)
	x.verify(b, 0, random(5, 4096))
	x.place(d, a, a.Kick.FD(), a.Call.FD())
	x.must(d.Session.SetVringEnable(0, true))
	x.verify(a, 0, random(6, 4096))
}

func endInFlight(x *rig) {
	for range 20 {
		d := x.open(frontend.Options{Queues: min(2, x.peer.queues)})
		for _, q := range d.Queues() {
			x.submit(q, x.batch(q, 32)...)
		}
		x.must(d.Session.Close())
	}
}

// endAnywhere ends sessions after each of the messages of a normal start.
func endAnywhere(x *rig) {
	d := x.connect(frontend.Options{})
	table, fds, err := d.Memory.Table()
	x.must(err)
	q := d.Queue(0)
	steps := []func(s *frontend.Session) error{
		func(s *frontend.Session) error { _, err := s.GetFeatures(); return err },
		func(s *frontend.Session) error { _, err := s.GetProtocolFeatures(); return err },
		func(s *frontend.Session) error { return s.SetProtocolFeatures(d.ProtocolFeatures) },
		(*frontend.Session).SetOwner,
		func(s *frontend.Session) error { return s.SetFeatures(d.Features) },
		func(s *frontend.Session) error { return s.SetMemTable(table, fds...) },
		func(s *frontend.Session) error { return s.SetVringNum(0, 128) },
		func(s *frontend.Session) error { return s.SetVringBase(0, 0) },
		func(s *frontend.Session) error { return s.SetVringAddr(q.Ring.Addr(0)) },
		func(s *frontend.Session) error { return s.SetVringCall(0, q.Call.FD()) },
		func(s *frontend.Session) error { return s.SetVringKick(0, q.Kick.FD()) },
		func(s *frontend.Session) error { return s.SetVringEnable(0, true) },
		func(s *frontend.Session) error { _, err := s.GetVringBase(0); return err },
	}
	x.must(d.Session.Close())
	for n := range steps {
		s := x.session()
		for _, step := range steps[:n] {
			x.must(step(s))
		}
		x.must(s.Close())
	}
}

// grows also shows that neither side waits for the other: the front-end reads the
// configuration space before it answers, as QEMU does.
func grows(x *rig) {
	if x.target.Grow == nil {
		x.skipf("this back-end cannot grow")
	}
	changed := make(chan frontend.Config, 1)
	d := x.open(frontend.Options{ConfigChanged: func(c frontend.Config) { changed <- c }})
	q := d.Queue(0)
	end := d.Capacity()
	if _, err := q.ReadAt(make([]byte, x.peer.block), end); err == nil {
		x.fatalf("a read behind the end was served")
	}
	x.must(x.target.Grow(x.ctx))
	select {
	case c := <-changed:
		if c.Capacity <= d.Config.Capacity {
			x.errorf("capacity went from %d to %d", d.Config.Capacity, c.Capacity)
		}
	case <-time.After(x.patience):
		x.fatalf("no notice in %v", x.patience)
	}
	x.verify(q, end, random(7, x.peer.block))
}
