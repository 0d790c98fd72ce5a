package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"

	"golang.org/x/sys/unix"
)

const (
	// patience is how long a back-end may take over anything.
	patience = 10 * time.Second
	// silence is how long nothing has to happen before we believe that nothing will.
	silence = 30 * time.Millisecond
)

// rig is one test and the back-end that it is for.
type rig struct {
	*testing.T
	target Target
	last   *frontend.Session
}

func (x *rig) must(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

// wantErr checks for one of the errors.
func (x *rig) wantErr(what string, err error, want ...error) {
	x.Helper()
	for _, w := range want {
		if errors.Is(err, w) {
			return
		}
	}
	x.Errorf("%s: got %v", what, err)
}

// refused is what a back-end may do with a message that it does not like: answer
// with a failure, or end the session.
var refused = []error{frontend.ErrRefused, frontend.ErrDisconnected}

// session is a connection on which nothing was said yet. A back-end serves one at
// a time, so the one before is closed.
func (x *rig) session() *frontend.Session {
	x.Helper()
	if x.last != nil {
		_ = x.last.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := frontend.Dial(ctx, x.target.Socket)
	x.must(err)
	s.SetTimeout(patience)
	x.Cleanup(func() { _ = s.Close() })
	x.last = s
	return s
}

// connect negotiates and does not start.
func (x *rig) connect(o frontend.Options) *frontend.Disk {
	x.Helper()
	s := x.session()
	o.Timeout = patience
	d, err := frontend.Connect(s, o)
	x.must(err)
	// A case may leave the session in any state.
	x.Cleanup(func() { _ = d.Close() })
	return d
}

// open negotiates and starts.
func (x *rig) open(o frontend.Options) *frontend.Disk {
	x.Helper()
	d := x.connect(o)
	x.must(d.Start())
	return d
}

// share does what comes before the rings: features and memory.
func (x *rig) share(d *frontend.Disk) {
	x.Helper()
	x.must(d.Session.SetFeatures(d.Features))
	table, fds, err := d.Memory.Table()
	x.must(err)
	x.must(d.Session.SetMemTable(table, fds...))
}

// place tells the back-end where a ring is, with notifiers of the caller's choice
// (-1: none), and neither kicks nor enables it.
func (x *rig) place(d *frontend.Disk, q *frontend.Queue, kick, call int) {
	x.Helper()
	i := uint32(q.Index())
	x.must(d.Session.SetVringNum(i, uint32(q.Ring.Size())))
	x.must(d.Session.SetVringBase(i, uint32(q.Ring.UsedIndex())))
	x.must(d.Session.SetVringAddr(q.Ring.Addr(i)))
	x.must(d.Session.SetVringErr(uint8(i), q.Err.FD()))
	x.must(d.Session.SetVringCall(uint8(i), call))
	x.must(d.Session.SetVringKick(uint8(i), kick))
}

// alive is a question that a session in any state answers.
func (x *rig) alive(s *frontend.Session) {
	x.Helper()
	if _, err := s.GetFeatures(); err != nil {
		x.Errorf("the session is gone: %v", err)
	}
}

// submit puts requests into the ring and kicks.
func (x *rig) submit(q *frontend.Queue, requests ...*frontend.Request) {
	x.Helper()
	for _, r := range requests {
		x.must(q.Submit(r))
	}
	x.must(q.Kick.Signal())
}

// drain waits for n requests, all of them successful.
func (x *rig) drain(q *frontend.Queue, n int) {
	x.Helper()
	done := make([]*frontend.Request, n)
	for n > 0 {
		k, err := q.Wait(done[:n])
		x.must(err)
		for _, r := range done[:k] {
			x.must(r.Err())
		}
		n -= k
	}
}

// untouched checks that a ring with requests in it is left alone. A notification
// alone would be legal.
func (x *rig) untouched(d *frontend.Disk, q *frontend.Queue) {
	x.Helper()
	x.alive(d.Session) // whatever was sent before has been acted upon
	readable(q.Err.FD(), silence)
	if n := q.Ring.Pending(); n != 0 {
		x.Errorf("the back-end completed %d requests", n)
	}
}

// silent is untouched, and there is no notification either.
func (x *rig) silent(d *frontend.Disk, q *frontend.Queue) {
	x.Helper()
	x.untouched(d, q)
	if readable(q.Call.FD(), 0) {
		x.Error("the back-end notified")
	}
}

// readable waits for a descriptor.
func readable(fd int, d time.Duration) bool {
	deadline := time.Now().Add(d)
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline).Milliseconds())))
		if err != unix.EINTR {
			return n == 1 && fds[0].Revents&unix.POLLIN != 0
		}
	}
}

// request makes one with n bytes of data.
func (x *rig) request(q *frontend.Queue, typ uint32, sector uint64, n int) *frontend.Request {
	x.Helper()
	r, err := q.NewRequest(n)
	x.must(err)
	r.Type, r.Sector = typ, sector
	return r
}

func random(seed, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// verify writes and reads back.
func (x *rig) verify(q *frontend.Queue, off int64, data []byte) {
	x.Helper()
	if _, err := q.WriteAt(data, off); err != nil {
		x.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := q.ReadAt(got, off); err != nil {
		x.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		x.Fatalf("%d bytes at %d read back differently", len(data), off)
	}
}

// healthy is the session that follows each case.
func healthy(x *rig) {
	d := x.open(frontend.Options{Queues: 2})
	for i, q := range d.Queues() {
		x.verify(q, int64(i)<<20, random(i, 100<<10))
		x.must(q.Flush())
	}
	x.must(d.Stop())
	x.must(d.Close())
}

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
	x.Helper()
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
	x.Helper()
	c.r.Publish()
	x.must(c.q.Kick.Signal())
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		c.r.RequestCall()
		switch {
		case c.r.Pending() > 0:
			return completed
		case readable(c.q.Err.FD(), 0):
			return broken
		}
		fds := []unix.PollFd{{Fd: int32(c.q.Err.FD()), Events: unix.POLLIN}, {Fd: int32(c.q.Call.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(patience.Milliseconds())); err != nil && err != unix.EINTR {
			x.Fatal(err)
		}
	}
	return nothing
}

// rejected checks that a malformed chain was answered with an error or broke the
// ring, and that the session outlives it.
func (x *rig) rejected(c *chain) {
	x.Helper()
	switch x.run(c) {
	case nothing:
		x.Error("the chain was dropped: neither an answer nor a broken ring")
	case completed:
		if s := c.status.Bytes[0]; s == frontend.StatusOK {
			x.Error("the chain was carried out")
		}
	case broken:
	}
	x.alive(c.d.Session)
}

// served checks that a chain was carried out.
func (x *rig) served(c *chain) {
	x.Helper()
	if got := x.run(c); got != completed {
		x.Fatalf("outcome %d", got)
	}
	if s := c.status.Bytes[0]; s != frontend.StatusOK {
		x.Errorf("status %d", s)
	}
	if got, want := c.usedLen(), len(c.data.Bytes)+1; got != uint32(want) {
		x.Errorf("used length %d, want %d", got, want)
	}
}

// header makes a message that does not come from a method of Session.
func header(r protocol.Request, f protocol.Flags) protocol.Header { return protocol.NewHeader(r, f) }
