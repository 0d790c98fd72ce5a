package conformance

import (
	"math/rand/v2"
	"sync"

	"sealblk/vhost/frontend"
	"sealblk/vhost/virtqueue"
)

var ringCases = []Case{
	{Kind: Must, Rule: "framing is free", Spec: "virtio 2.7.4.3", run: framings},
	{Kind: Must, Rule: "descriptors of length zero are legal", Spec: "virtio 2.7.5", run: emptyDescriptors},
	{Kind: Must, Rule: "every queue size is served", Spec: "virtio 2.7", run: sizes},
	{Kind: Must, Rule: "indexes wrap", Spec: "virtio 2.7.6, 2.7.8", run: indexesWrap},
	{Kind: Must, Rule: "no request is forgotten with notifications", Spec: "virtio 2.7.7, 2.7.10", run: stressNotified},
	{Kind: Must, Rule: "no request is forgotten with EVENT_IDX", Spec: "virtio 2.7.7.2", run: stressEventIdx},
	{Kind: Must, Rule: "queues run side by side", Spec: "virtio 5.2.2", run: sideBySide},
	{Kind: Must, Rule: "a call comes when it is asked for", Spec: "virtio 2.7.7", run: callsComeAsked},
	{Kind: Must, Rule: "an indirect table may cross regions", Spec: "virtio 2.7.5.3", run: indirectAcrossRegions},
	{Kind: Must, Rule: "an indirect table may be longer than the ring's free part", Spec: "virtio 2.7.5.3", run: indirectLong},
	{Kind: Must, Rule: "indirect descriptors may be unordered in their table", Spec: "virtio 2.7.5.3", run: indirectUnordered},
	{Kind: Must, Rule: "a table may be changed after it was read", Spec: "virtio 2.7.13", run: changedAfter},
}

const noIndirect = 1 << virtqueue.FeatureIndirectDesc

func framings(x *rig) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, without := range []uint64{0, noIndirect} {
		for name, f := range map[string]frontend.Framing{
			"merged": frontend.FrameMerged, "single bytes": frontend.FrameAtMost(1), "of three": frontend.FrameAtMost(3),
			"of 700": frontend.FrameAtMost(700), "random": frontend.FrameRandom(rng, 30),
		} {
			d := x.open(frontend.Options{Framing: f, QueueSize: 1024, Indirect: 1024, Without: without})
			q := d.Queue(0)
			for _, n := range []int{512, 1024} {
				if name == "single bytes" {
					n = 512
				}
				out := x.request(q, frontend.TypeOut, 8, n)
				want := random(n, n)
				copy(out.Data, want)
				in := x.request(q, frontend.TypeIn, 8, n)
				id := x.request(q, frontend.TypeGetID, 0, frontend.IDSize)
				for _, r := range []*frontend.Request{out, in, id} {
					if err := q.Do(r); err != nil {
						x.fatalf("%s, %d bytes, type %d: %v", name, n, r.Type, err)
					}
				}
				if string(in.Data) != string(want) {
					x.errorf("%s: %d bytes came back differently", name, n)
				}
				if out.Written != 1 || in.Written != uint32(n)+1 || id.Written != frontend.IDSize+1 {
					x.errorf("%s: used lengths %d, %d, %d", name, out.Written, in.Written, id.Written)
				}
			}
			x.must(d.Close())
		}
	}
}

func emptyDescriptors(x *rig) {
	rng := rand.New(rand.NewPCG(2, 2))
	d := x.open(frontend.Options{Framing: frontend.FrameWithEmpty(rng, frontend.FrameRandom(rng, 10))})
	for i := range 20 {
		x.verify(d.Queue(0), 0, random(i, 4096))
	}
}

func sizes(x *rig) {
	for _, size := range []int{1, 2, 4, 64, 256, 1024} {
		d := x.open(frontend.Options{QueueSize: size})
		if !d.Has(virtqueue.FeatureIndirectDesc) && size < 4 {
			continue
		}
		x.verify(d.Queue(0), 0, random(size, 64<<10))
		x.must(d.Close())
	}
}

func indexesWrap(x *rig) {
	for _, without := range []uint64{0, 1 << virtqueue.FeatureEventIdx} {
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
			x.errorf("base %d", base)
		}
		x.must(d.Close())
	}
}

// stress keeps a queue busy with few requests, so that both sides go to sleep and
// wake all the time.
func (x *rig) stress(q *frontend.Queue, depth, total int) {
	rng := rand.New(rand.NewPCG(uint64(depth), uint64(total)))
	var free []*frontend.Request
	for range depth {
		r, err := q.NewRequest(512)
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

const stressTotal = 20000

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

func callsComeAsked(x *rig) {
	for _, without := range []uint64{0, 1 << virtqueue.FeatureEventIdx} {
		d := x.open(frontend.Options{Without: without})
		q := d.Queue(0)
		x.verify(q, 0, random(1, 512)) // what a ring's start may signal is over
		q.Ring.SuppressCall()
		_, err := q.Call.Clear()
		x.must(err)
		x.submit(q, x.read(q, 0))
		for q.Ring.Pending() == 0 {
			x.alive(d.Session)
		}
		if readable(q.Call.FD(), silence) {
			x.errorf("a notification that was not asked for")
		}
		x.drain(q, 1)
		x.submit(q, x.read(q, 0))
		q.Ring.RequestCall()
		if q.Ring.Pending() == 0 && !readable(q.Call.FD(), x.patience) {
			x.errorf("no notification")
		}
		x.drain(q, 1)
		x.must(d.Close())
	}
}

func indirectAcrossRegions(x *rig) {
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
	d := x.open(frontend.Options{QueueSize: 128, Indirect: 128, Framing: frontend.FrameAtMost(512)})
	q := d.Queue(0)
	for _, n := range []int{512, 100 * 512, 126 * 512} {
		x.must(q.Do(x.request(q, frontend.TypeOut, 0, n)))
		x.must(q.Do(x.request(q, frontend.TypeIn, 0, n)))
	}
}

func indirectUnordered(x *rig) {
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
	close(stop)
	wg.Wait()
	x.alive(d.Session)
}
