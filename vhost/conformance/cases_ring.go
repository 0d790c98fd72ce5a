package conformance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

var ringCases = append(append(framingCases(), sizeCases()...), []Case{
	{Kind: Must, Rule: "indexes wrap with EVENT_IDX", Spec: "virtio 2.7.6, 2.7.8", run: wraps(0)},
	{Kind: Must, Rule: "indexes wrap without EVENT_IDX", Spec: "virtio 2.7.6, 2.7.8", run: wraps(noEventIdx)},
	{Kind: Must, Rule: "a ring begins at any index", Spec: "vhost-user, SET_VRING_BASE", run: anyBase},
	{Kind: Must, Rule: "no request is forgotten with notifications", Spec: "virtio 2.7.7, 2.7.10", run: stressNotified},
	{Kind: Must, Rule: "no request is forgotten with EVENT_IDX", Spec: "virtio 2.7.7.2, 2.7.10", run: stressEventIdx},
	{Kind: Must, Rule: "no request is forgotten by a driver that polls", Spec: "virtio 2.7.10", run: stressPolling},
	{Kind: Must, Rule: "a full ring is served", Spec: "virtio 2.7.6", run: fullRing},
	{Kind: Must, Rule: "queues run side by side", Spec: "virtio 5.2.2", run: sideBySide},
	{Kind: Must, Rule: "a notification comes when it is asked for with EVENT_IDX", Spec: "virtio 2.7.7.2", run: calls(0)},
	{Kind: Must, Rule: "a notification comes when it is asked for by flag", Spec: "virtio 2.7.7.2", run: calls(noEventIdx)},
	{Kind: House, Rule: "no notification comes when used_event is elsewhere", Spec: "virtio 2.7.7.2 (SHOULD)", run: suppressed(0)},
	{Kind: House, Rule: "no notification comes with NO_INTERRUPT", Spec: "virtio 2.7.7.2 (SHOULD)", run: suppressed(noEventIdx)},
	{Kind: Must, Rule: "an indirect table may cross regions", Spec: "virtio 2.7.5.3", run: indirectAcrossRegions},
	{Kind: Must, Rule: "an indirect table may be longer than the free part of the ring", Spec: "virtio 2.7.5.3", run: indirectLong},
	{Kind: Must, Rule: "indirect descriptors may be unordered in their table", Spec: "virtio 2.7.5.3", run: indirectUnordered},
	{Kind: House, Rule: "a table may be changed after it was read", Spec: "virtio 2.7.13", run: changedAfter},
	{Kind: Must, Rule: "requests complete in order if IN_ORDER is offered", Spec: "virtio 2.7.9", run: inOrder},
	{Kind: Must, Rule: "a ring is reset and set up anew if RING_RESET is offered", Spec: "virtio 2.6.1", run: ringReset},
	{Kind: Must, Rule: "packed rings are served if they are offered", Spec: "virtio 2.8", run: packed},
}...)

const (
	noIndirect = 1 << virtqueue.FeatureIndirectDesc
	noEventIdx = 1 << virtqueue.FeatureEventIdx

	featurePacked    = 34
	featureInOrder   = 35
	featureRingReset = 40
)

// framingCases are all ways to cut a request into descriptors, in the ring and in
// indirect tables. Those with more pieces than an ordinary driver would send, or
// with empty ones, go beyond the letter of the specification.
func framingCases() []Case {
	var cases []Case
	for _, f := range []struct {
		kind Kind
		name string
		cut  func(rng *rand.Rand, pieces int) frontend.Framing
	}{
		{Must, "one descriptor for each part", func(*rand.Rand, int) frontend.Framing { return frontend.FrameParts }},
		{Must, "parts merged into one descriptor", func(*rand.Rand, int) frontend.Framing { return frontend.FrameMerged }},
		{House, "single bytes", atMost(1)},
		{House, "pieces of three bytes", atMost(3)},
		{Must, "pieces of 700 bytes", atMost(700)},
		{Must, "random pieces", func(rng *rand.Rand, pieces int) frontend.Framing { return frontend.FrameRandom(rng, min(30, pieces)) }},
		{House, "descriptors of length zero", func(rng *rand.Rand, pieces int) frontend.Framing {
			return frontend.FrameWithEmpty(rng, frontend.FrameRandom(rng, min(10, pieces)))
		}},
	} {
		for where, without := range map[string]uint64{"indirect": 0, "direct": noIndirect} {
			cases = append(cases, Case{
				Kind: f.kind, Rule: fmt.Sprintf("framing is free: %s, %s", f.name, where), Spec: "virtio 2.7.4.3",
				run: func(x *rig) { framed(x, f.cut, without) },
			})
		}
	}
	slices.SortFunc(cases, func(a, b Case) int { return strings.Compare(a.Rule, b.Rule) })
	return cases
}

func atMost(n int) func(*rand.Rand, int) frontend.Framing {
	return func(_ *rand.Rand, pieces int) frontend.Framing {
		return frontend.FrameAtMost(uint32(max(n, 4096/pieces)))
	}
}

func framed(x *rig, cut func(*rand.Rand, int) frontend.Framing, without uint64) {
	if without == 0 {
		x.needsIndirect()
	}
	size := x.peer.maxQueueSize
	rng := rand.New(rand.NewPCG(1, 1))
	// Header, status and what is left over when 4096 bytes are cut take some too.
	d := x.open(frontend.Options{Framing: cut(rng, max(1, size*3/4-20)), QueueSize: size, Indirect: size, Without: without})
	q := d.Queue(0)
	for i := range 4 {
		data := random(i, x.peer.block)
		if !x.peer.readOnly() {
			out := x.request(q, frontend.TypeOut, 8, len(data))
			copy(out.Data, data)
			x.must(q.Do(out))
			x.wantWritten("write", out, 1)
		}
		in := x.request(q, frontend.TypeIn, 8, len(data))
		x.must(q.Do(in))
		if !x.peer.readOnly() && string(in.Data) != string(data) {
			x.errorf("came back differently")
		}
		x.wantWritten("read", in, len(data)+1)
		id := x.request(q, frontend.TypeGetID, 0, frontend.IDSize)
		x.must(q.Do(id))
		x.wantWritten("GET_ID", id, frontend.IDSize+1)
	}
}

// wantWritten checks the used length.
func (x *rig) wantWritten(what string, r *frontend.Request, n int) {
	if r.Written != uint32(n) {
		x.errorf("%s: used length %d, want %d", what, r.Written, n)
	}
}

// sizeCases are all sizes of rings that drivers use, and the two smallest there are.
func sizeCases() []Case {
	var cases []Case
	for size := 1; size <= 1024; size *= 2 {
		kind := Must
		if size < 4 {
			kind = House
		}
		cases = append(cases, Case{Kind: kind, Rule: fmt.Sprintf("a ring of %d is served", size), Spec: "virtio 2.7", run: func(x *rig) {
			if size < 4 {
				x.needsIndirect()
			}
			x.must(ignoreRefusal(x, size))
			d := x.open(frontend.Options{QueueSize: size})
			x.verify(d.Queue(0), 0, random(size, 64<<10))
			x.stress(d.Queue(0), min(3, size), 100+size)
		}})
	}
	return cases
}

// ignoreRefusal skips a size that the back-end refuses when it is set: what it must
// not do is accept and not serve it.
func ignoreRefusal(x *rig, size int) error {
	if size >= 4 || !x.peer.hasProtocol(protocol.ProtocolReplyAck) {
		return nil
	}
	s := x.acked()
	err := s.SetVringNum(0, uint32(size))
	if errors.Is(err, frontend.ErrRefused) {
		x.skipf("rings of %d are refused", size)
	}
	return err
}

func wraps(without uint64) func(*rig) {
	return func(x *rig) {
		if without == 0 {
			x.needs(virtqueue.FeatureEventIdx, "EVENT_IDX")
		}
		d := x.connect(frontend.Options{QueueSize: 8, Without: without})
		q := d.Queue(0)
		q.Ring.Reset(65530)
		x.share(d)
		x.place(d, q, q.Kick.FD(), q.Call.FD())
		x.must(d.Session.SetVringEnable(0, true))
		x.must(q.Kick.Signal())
		r := x.read(q, 0)
		for range 30 {
			x.must(q.Do(r))
		}
		base, err := d.Session.GetVringBase(0)
		x.must(err)
		if base != 24 {
			x.errorf("base %d, want 24", base)
		}
	}
}

func anyBase(x *rig) {
	for _, base := range []uint16{1, 100, 32768, 65535} {
		d := x.connect(frontend.Options{QueueSize: 16})
		q := d.Queue(0)
		q.Ring.Reset(base)
		x.share(d)
		x.place(d, q, q.Kick.FD(), q.Call.FD())
		x.must(d.Session.SetVringEnable(0, true))
		x.submit(q, x.read(q, 0), x.read(q, 1))
		x.drain(q, 2)
		stop, err := d.Session.GetVringBase(0)
		x.must(err)
		if uint16(stop) != base+2 {
			x.errorf("begun at %d, two requests later the base is %d", base, stop)
		}
		x.must(d.Session.Close())
	}
}

func stressPolling(x *rig) {
	d := x.open(frontend.Options{Polling: true})
	x.stress(d.Queue(0), 5, stressTotal)
}

// fullRing takes every descriptor of the ring, in tables and without.
func fullRing(x *rig) {
	for _, without := range []uint64{0, noIndirect} {
		d := x.open(frontend.Options{QueueSize: min(256, x.peer.maxQueueSize), Without: without})
		q := d.Queue(0)
		for range 3 {
			n := 0
			for ; ; n++ {
				if q.Submit(x.read(q, n)) != nil {
					break // it is full
				}
			}
			x.must(q.Kick.Signal())
			x.drain(q, n)
		}
		x.must(d.Close())
	}
}

func inOrder(x *rig) {
	x.needs(featureInOrder, "IN_ORDER")
	d := x.connect(frontend.Options{})
	d.Features |= 1 << featureInOrder
	x.must(d.Start())
	q := d.Queue(0)
	requests := x.batch(q, 32)
	for i, r := range requests {
		r.Tag = uint64(i)
	}
	x.submit(q, requests...)
	done := make([]*frontend.Request, len(requests))
	for seen := 0; seen < len(requests); {
		n, err := q.Wait(done)
		x.must(err)
		for _, r := range done[:n] {
			if r.Tag != uint64(seen) {
				x.fatalf("request %d completed in place %d", r.Tag, seen)
			}
			seen++
		}
	}
}

// ringReset does what a front-end has to do for the reset of one ring, for which there is
// no message. QEMU's vhost-user-blk does not, up to version 10.
func ringReset(x *rig) {
	x.needs(featureRingReset, "RING_RESET")
	d := x.connect(frontend.Options{})
	d.Features |= 1 << featureRingReset
	x.must(d.Start())
	q := d.Queue(0)
	x.verify(q, 0, random(1, 4096))
	x.must(d.Session.SetVringEnable(0, false))
	_, err := d.Session.GetVringBase(0)
	x.must(err)
	q.Ring.Reset(0)
	x.place(d, q, q.Kick.FD(), q.Call.FD())
	x.must(d.Session.SetVringEnable(0, true))
	x.must(q.Kick.Signal())
	x.verify(q, 0, random(2, 4096))
}

func packed(x *rig) {
	x.needs(featurePacked, "RING_PACKED")
	x.skipf("RING_PACKED is offered, but the suite's driver has split rings only")
}

// stress keeps a queue busy with few requests, so that both sides go to sleep and
// wake all the time.
func (x *rig) stress(q *frontend.Queue, depth, total int) {
	rng := rand.New(rand.NewPCG(uint64(depth), uint64(total)))
	var free []*frontend.Request
	for range depth {
		r, err := q.NewRequest(x.peer.block)
		if err != nil {
			x.errorf("%v", err)
			return
		}
		free = append(free, r)
	}
	done := make([]*frontend.Request, depth)
	for finished := 0; finished < total; {
		for k := rng.IntN(len(free) + 1); k > 0; k-- {
			r := free[len(free)-1]
			free = free[:len(free)-1]
			r.Type, r.Sector = rng.Uint32N(2), uint64(8*rng.IntN(512))
			if x.peer.readOnly() {
				r.Type = frontend.TypeIn
			}
			if err := q.Submit(r); err != nil {
				x.errorf("%v", err)
				return
			}
		}
		if err := q.Notify(); err != nil {
			x.errorf("%v", err)
			return
		}
		if q.InFlight() == 0 {
			continue
		}
		n, err := q.Wait(done)
		if err != nil {
			x.errorf("after %d requests, %d in flight: %v", finished, q.InFlight(), err)
			return
		}
		finished += n
		free = append(free, done[:n]...)
	}
}

const stressTotal = 6000

func stressNotified(x *rig) {
	d := x.open(frontend.Options{Without: 1 << virtqueue.FeatureEventIdx})
	x.stress(d.Queue(0), 3, stressTotal)
}

func stressEventIdx(x *rig) {
	d := x.open(frontend.Options{})
	if !d.Has(virtqueue.FeatureEventIdx) {
		x.skipf("EVENT_IDX is not offered")
	}
	x.stress(d.Queue(0), 3, stressTotal)
}

func sideBySide(x *rig) {
	s := x.acked()
	n, err := s.GetQueueNum()
	x.must(err)
	x.must(s.Close())
	d := x.open(frontend.Options{Queues: int(min(n, 4))})
	requests := make([][]*frontend.Request, len(d.Queues()))
	for i, q := range d.Queues() {
		requests[i] = x.batch(q, 16)
	}
	var wg sync.WaitGroup
	for i, q := range d.Queues() {
		wg.Go(func() {
			done := make([]*frontend.Request, 16)
			for range 200 {
				for _, r := range requests[i] {
					if err := q.Submit(r); err != nil {
						x.errorf("%v", err)
						return
					}
				}
				if err := q.Notify(); err != nil {
					x.errorf("%v", err)
				}
				for left := 16; left > 0; {
					n, err := q.Wait(done)
					if err != nil {
						x.errorf("%v", err)
						return
					}
					left -= n
				}
			}
		})
	}
	wg.Wait()
}

func calls(without uint64) func(*rig) {
	return func(x *rig) {
		if without == 0 {
			x.needs(virtqueue.FeatureEventIdx, "EVENT_IDX")
		}
		d := x.open(frontend.Options{Without: without})
		q := d.Queue(0)
		for i := range 50 {
			x.submit(q, x.read(q, i))
			if !q.Ring.RequestCall() && !readable(q.Call.FD(), x.patience) && q.Ring.Pending() > 0 {
				x.fatalf("request %d completed without the notification that was asked for", i)
			}
			x.drain(q, 1)
		}
	}
}

func suppressed(without uint64) func(*rig) {
	return func(x *rig) {
		if without == 0 {
			x.needs(virtqueue.FeatureEventIdx, "EVENT_IDX")
		}
		d := x.open(frontend.Options{Without: without})
		q := d.Queue(0)
		x.verify(q, 0, random(1, x.peer.block)) // what a ring's start may signal is over
		q.Ring.SuppressCall()
		_, err := q.Call.Clear()
		x.must(err)
		x.submit(q, x.read(q, 0))
		x.await("a completion", func() bool { return q.Ring.Pending() > 0 })
		if readable(q.Call.FD(), silence) {
			x.errorf("a notification that was not asked for")
		}
		x.drain(q, 1)
	}
}

func indirectAcrossRegions(x *rig) {
	x.needsIndirect()
	d := x.open(frontend.Options{Layout: adjoining(2, 4096)})
	c := x.chain(d, frontend.TypeIn)
	at := uint64(1<<32 + 4096 - 24) // one and a half descriptors before the border
	for i, ds := range c.good() {
		var b [virtqueue.DescSize]byte
		ds.Put(b[:])
		x.must(d.Memory.Write(b[:], at+uint64(i)*virtqueue.DescSize))
	}
	c.put(virtqueue.Desc{Addr: at, Len: 3 * virtqueue.DescSize, Flags: indirect})
	x.served(c)
}

func indirectLong(x *rig) {
	x.needsIndirect()
	d := x.open(frontend.Options{QueueSize: 128, Indirect: 128, Framing: frontend.FrameAtMost(512)})
	q := d.Queue(0)
	for _, n := range []int{4096, 96 * 512, 120 * 512} {
		x.must(q.Do(x.request(q, frontend.TypeIn, 0, n)))
	}
}

func indirectUnordered(x *rig) {
	x.needsIndirect()
	d := x.open(frontend.Options{})
	c := x.chain(d, frontend.TypeIn)
	ds := c.good()
	ds[0].Next, ds[1].Next = 4, 2
	c.putIndirect(5*virtqueue.DescSize, 0, ds[0], virtqueue.Desc{}, ds[2], virtqueue.Desc{Flags: 0xffff}, ds[1])
	x.served(c)
}

// changedAfter overwrites table and ring as soon as a request is under way: it is
// served as it was or as it became, and nothing falls over.
func changedAfter(x *rig) {
	d := x.open(frontend.Options{})
	c := x.chain(d, frontend.TypeIn)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer func() { // before the memory goes, however the case ends
		close(stop)
		wg.Wait()
	}()
	wg.Go(func() {
		good, bad := c.good(), virtqueue.Desc{Addr: 1 << 60, Len: 1 << 31, Flags: 7, Next: 9}
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				c.r.PutDesc(1, good[1])
				c.r.PutDesc(1, bad)
			}
		}
	})
	c.put(c.good()...)
	if x.run(c) == nothing {
		x.errorf("the chain was dropped")
	}
	x.alive(d.Session)
}
