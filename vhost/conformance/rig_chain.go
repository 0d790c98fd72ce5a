package conformance

import (
	"encoding/binary"
	"time"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

// chain is a hand-made request in a ring: a header, one page of data and a status
// byte, for a case to describe wrongly.
type chain struct {
	d                    *frontend.Disk
	q                    *frontend.Queue
	r                    *frontend.Ring
	header, data, status frontend.Block
	table                frontend.Block
}

const unset = 0xff

func (x *rig) chain(d *frontend.Disk, typ uint32) *chain {
	c := &chain{d: d, q: d.Queue(0), r: d.Queue(0).Ring}
	for _, a := range []struct {
		b *frontend.Block
		n uint64
	}{{&c.header, 16}, {&c.data, 4096}, {&c.status, 1}, {&c.table, 64 << 10}} {
		b, err := d.Memory.Alloc(a.n, 16)
		x.must(err)
		*a.b = b
	}
	binary.LittleEndian.PutUint32(c.header.Bytes, typ)
	c.status.Bytes[0] = unset
	return c
}

const (
	next     = virtqueue.DescNext
	write    = virtqueue.DescWrite
	indirect = virtqueue.DescIndirect
)

func desc(s frontend.Segment, flags, to uint16) virtqueue.Desc {
	return virtqueue.Desc{Addr: s.Addr, Len: s.Len, Flags: flags, Next: to}
}

// good is the correct chain of a read: header, data, status.
func (c *chain) good() []virtqueue.Desc {
	return []virtqueue.Desc{
		desc(c.header.Segment(), next, 1),
		desc(c.data.Segment(), next|write, 2),
		desc(c.status.Segment(), write, 0),
	}
}

// put writes descriptors from index 0 on and makes the first one available.
func (c *chain) put(ds ...virtqueue.Desc) {
	for i, d := range ds {
		c.r.PutDesc(uint16(i), d)
	}
	c.r.AddHead(0)
}

// putIndirect writes descriptors into the indirect table, with a descriptor of
// length bytes for it.
func (c *chain) putIndirect(length uint32, flags uint16, ds ...virtqueue.Desc) {
	for i, d := range ds {
		d.Put(c.table.Bytes[i*virtqueue.DescSize:])
	}
	c.put(virtqueue.Desc{Addr: c.table.GuestAddr, Len: length, Flags: indirect | flags, Next: 1})
}

// usedLen is the length in the next used element.
func (c *chain) usedLen() uint32 {
	at := virtqueue.UsedRingOffset + virtqueue.UsedElemSize*(int(c.r.UsedIndex())%c.r.Size())
	return binary.LittleEndian.Uint32(c.r.Used.Bytes[at+4:])
}

// outcome is what a back-end made of a chain.
type outcome int

const (
	nothing outcome = iota
	completed
	broken
)

// run publishes and waits until the chain is returned or the ring is reported as
// broken.
func (x *rig) run(c *chain) outcome {
	c.r.Publish()
	x.must(c.q.Kick.Signal())
	for end := time.Now().Add(x.patience); time.Now().Before(end) && x.ctx.Err() == nil; {
		c.r.RequestCall()
		switch {
		case c.r.Pending() > 0:
			return completed
		case readable(c.q.Err.FD(), 0):
			return broken
		}
		// Now and then the session is asked too: it may be gone.
		if _, err := pollIn(silence, c.q.Err.FD(), c.q.Call.FD()); err != nil {
			x.must(err)
		}
		_, _ = c.q.Call.Clear()
		x.alive(c.d.Session)
	}
	return nothing
}

// rejected checks that a malformed chain was answered with an error or broke the
// ring, and that the session outlives it.
func (x *rig) rejected(c *chain) {
	switch x.run(c) {
	case nothing:
		x.errorf("the chain was dropped: neither an answer nor a broken ring")
	case completed:
		if s := c.status.Bytes[0]; s == frontend.StatusOK {
			x.errorf("the chain was carried out")
		}
	case broken:
	}
	x.alive(c.d.Session)
}

// served checks that a chain was carried out.
func (x *rig) served(c *chain) {
	if got := x.run(c); got != completed {
		x.fatalf("outcome %d", got)
	}
	if s := c.status.Bytes[0]; s != frontend.StatusOK {
		x.errorf("status %d", s)
	}
	if got, want := c.usedLen(), len(c.data.Bytes)+1; got != uint32(want) {
		x.errorf("used length %d, want %d", got, want)
	}
}

// header makes a message that does not come from a method of Session.
func header(r protocol.Request, f protocol.Flags) protocol.Header { return protocol.NewHeader(r, f) }
