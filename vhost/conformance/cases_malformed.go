package conformance

import (
	"math"

	"sealblk/vhost/frontend"
	"sealblk/vhost/virtqueue"
)

// malformedCases are chains that no driver makes. Each is answered with an error,
// or breaks the ring, which is reported on its error descriptor; the session lives.
var malformedCases = []Case{
	bad("a chain that loops", "virtio 2.7.5.2", func(c *chain) {
		ds := c.good()
		ds[2].Flags, ds[2].Next = write|next, 1
		c.put(ds...)
	}),
	bad("a chain that loops on itself", "virtio 2.7.5.2", func(c *chain) {
		ds := c.good()
		ds[0].Next = 0
		c.put(ds...)
	}),
	bad("a loop of empty descriptors", "virtio 2.7.5.2", func(c *chain) {
		c.put(virtqueue.Desc{Flags: next, Next: 1}, virtqueue.Desc{Flags: next, Next: 0})
	}),
	bad("a next descriptor outside the table", "virtio 2.7.5", func(c *chain) {
		ds := c.good()
		ds[0].Next = uint16(c.r.Size())
		c.put(ds...)
	}),
	bad("a head outside the table", "virtio 2.7.6", func(c *chain) { c.r.AddHead(uint16(c.r.Size())) }),
	bad("a head of 65535", "virtio 2.7.6", func(c *chain) { c.r.AddHead(math.MaxUint16) }),
	bad("an avail index too far ahead", "virtio 2.7.6", func(c *chain) {
		c.put(c.good()...)
		c.r.SetAvailIndex(c.r.AvailIndex() + uint16(c.r.Size()))
	}),
	bad("an avail index that goes back", "virtio 2.7.6.1", func(c *chain) { c.r.SetAvailIndex(c.r.AvailIndex() - 1) }),
	bad("a readable descriptor behind a writable one", "virtio 2.7.4.2", func(c *chain) {
		ds := c.good()
		ds[0].Flags, ds[2].Flags = next|write, 0
		c.put(ds...)
	}),
	bad("no writable descriptor", "virtio 5.2.6", func(c *chain) {
		ds := c.good()
		ds[1].Flags, ds[2].Flags = next, 0
		c.put(ds...)
	}),
	bad("no readable descriptor", "virtio 5.2.6", func(c *chain) { c.put(desc(c.status.Segment(), write, 0)) }),
	bad("a header of 15 bytes", "virtio 5.2.6", func(c *chain) {
		ds := c.good()
		ds[0].Len = 15
		c.put(ds...)
	}),
	bad("a chain of nothing", "virtio 5.2.6", func(c *chain) { c.put(virtqueue.Desc{}) }),
	bad("a status of no bytes", "virtio 5.2.6", func(c *chain) {
		ds := c.good()
		ds[0].Next, ds[2].Len = 2, 0
		c.put(ds...)
	}),
	badAddress("outside memory", 1<<50, 4096),
	badAddress("that reaches out of memory", 8*mib-512, 4096),
	badAddress("that wraps", math.MaxUint64-511, 4096),
	badAddress("of 4 GiB", 0, math.MaxUint32),
	badAddress("in a hole", 12*mib, 512),
	bad("a header outside memory", "virtio 2.7.5", func(c *chain) {
		ds := c.good()
		ds[0].Addr = 1 << 50
		c.put(ds...)
	}),
	bad("a status outside memory", "virtio 2.7.5", func(c *chain) {
		ds := c.good()
		ds[2].Addr = 1 << 50
		c.put(ds...)
	}),
	bad("lengths that add up to more than 32 bits", "virtio 2.7.5", func(c *chain) {
		// 1024 times the same 8 MiB, as far as a table reaches.
		n := min(1024, c.r.Size()-2)
		big := frontend.Segment{Addr: 0, Len: 8 * mib}
		ds := []virtqueue.Desc{desc(c.header.Segment(), next, 1)}
		for i := range n {
			ds = append(ds, desc(big, next, uint16(i+2)))
		}
		ds = append(ds, desc(c.status.Segment(), write, 0))
		c.header.Bytes[0] = byte(frontend.TypeOut)
		c.put(ds...)
	}),
	badIndirect("of 17 bytes", func(c *chain) { c.putIndirect(17, 0, c.good()...) }),
	badIndirect("of 47 bytes", func(c *chain) { c.putIndirect(47, 0, c.good()...) }),
	badIndirect("of no bytes", func(c *chain) { c.putIndirect(0, 0, c.good()...) }),
	badIndirect("of 4 GiB", func(c *chain) { c.putIndirect(math.MaxUint32&^15, 0, c.good()...) }),
	badIndirect("outside memory", func(c *chain) {
		c.put(virtqueue.Desc{Addr: 1 << 50, Len: 48, Flags: indirect})
	}),
	badIndirect("that reaches out of memory", func(c *chain) {
		c.put(virtqueue.Desc{Addr: 8*mib - 16, Len: 48, Flags: indirect})
	}),
	badIndirect("with a next descriptor", func(c *chain) {
		c.putIndirect(48, next, c.good()...)
		c.r.PutDesc(1, desc(c.data.Segment(), write, 0))
	}),
	badIndirect("in an indirect table", func(c *chain) {
		ds := c.good()
		ds[1] = virtqueue.Desc{Addr: c.table.GuestAddr + 1024, Len: 48, Flags: indirect}
		for i, d := range c.good() {
			d.Put(c.table.Bytes[1024+i*virtqueue.DescSize:])
		}
		c.putIndirect(48, 0, ds...)
	}),
	badIndirect("that is itself", func(c *chain) {
		c.putIndirect(16, 0, virtqueue.Desc{Addr: c.table.GuestAddr, Len: 16, Flags: indirect})
	}),
	badIndirect("that loops", func(c *chain) {
		ds := c.good()
		ds[2].Flags, ds[2].Next = write|next, 1
		c.putIndirect(48, 0, ds...)
	}),
	badIndirect("with a next outside it", func(c *chain) {
		ds := c.good()
		ds[1].Next = 3
		c.putIndirect(48, 0, ds...)
	}),
	{Kind: House, Rule: "a broken ring can be set up anew", Spec: "vhost-user, SET_VRING_ERR", run: brokenRing},
	{Kind: House, Rule: "a broken ring leaves the others alone", Spec: "vhost-user, SET_VRING_ERR", run: brokenNeighbour},
	{Kind: House, Rule: "requests before a malformed one are completed", Spec: "vhost-user, SET_VRING_ERR", run: beforeBroken},
	{Kind: House, Rule: "an indirect table without the feature is rejected", Spec: "virtio 2.7.5.3", run: indirectNotNegotiated},
}

// malformedLayout ends at 8 MiB, with a hole behind.
var malformedLayout = []frontend.RegionLayout{{Size: 8 * mib}, {GuestAddr: 16 * mib, Size: mib}}

func bad(name, source string, build func(*chain)) Case {
	return Case{Kind: House, Rule: name + " is rejected", Spec: source, run: func(x *rig) {
		d := x.open(frontend.Options{Layout: malformedLayout, QueueSize: min(1024, x.peer.maxQueueSize)})
		c := x.chain(d, frontend.TypeIn)
		build(c)
		x.rejected(c)
	}}
}

func badAddress(name string, addr uint64, n uint32) Case {
	return bad("a buffer "+name, "virtio 2.7.5", func(c *chain) {
		ds := c.good()
		ds[1].Addr, ds[1].Len = addr, n
		c.put(ds...)
	})
}

func badIndirect(name string, build func(*chain)) Case {
	c := bad("an indirect table "+name, "virtio 2.7.5.3", build)
	reject := c.run
	c.run = func(x *rig) {
		x.needsIndirect()
		reject(x)
	}
	return c
}

func brokenRing(x *rig) {
	d := x.open(frontend.Options{})
	c := x.chain(d, frontend.TypeIn)
	c.r.AddHead(math.MaxUint16)
	x.rejected(c)
	_, err := d.Session.GetVringBase(0)
	x.must(err)
	c.r.Reset(0)
	x.place(d, c.q, c.q.Kick.FD(), c.q.Call.FD())
	x.must(d.Session.SetVringEnable(0, true))
	x.verify(c.q, 0, random(1, 4096))
}

func brokenNeighbour(x *rig) {
	d := x.open(frontend.Options{Queues: 2})
	c := x.chain(d, frontend.TypeIn)
	c.r.AddHead(math.MaxUint16)
	x.rejected(c)
	x.verify(d.Queue(1), 0, random(2, 64<<10))
}

func beforeBroken(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	for _, r := range x.batch(q, 8) {
		x.must(q.Submit(r))
	}
	q.Ring.AddHead(math.MaxUint16)
	q.Ring.Publish()
	x.must(q.Kick.Signal())
	x.drain(q, 8)
	if !readable(q.Err.FD(), x.patience) {
		x.errorf("the ring was not reported as broken")
	}
}

func indirectNotNegotiated(x *rig) {
	d := x.open(frontend.Options{Without: noIndirect})
	c := x.chain(d, frontend.TypeIn)
	c.putIndirect(48, 0, c.good()...)
	x.rejected(c)
}
