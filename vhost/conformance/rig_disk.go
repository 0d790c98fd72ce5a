package conformance

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

// session is a connection on which nothing was said yet. A back-end may serve one
// at a time, so the one before is closed.
func (x *rig) session() *frontend.Session {
	if x.ctx.Err() != nil {
		x.fatalf("no time is left")
	}
	if x.last != nil {
		_ = x.last.Close()
	}
	s, err := x.dial()
	x.must(err)
	s.SetTimeout(x.patience)
	x.cleanup(func() { _ = s.Close() })
	x.mu.Lock()
	x.last = s
	x.mu.Unlock()
	return s
}

// dial waits while the back-end's queue of connections is full.
func (x *rig) dial() (*frontend.Session, error) {
	for end := time.Now().Add(x.patience); ; time.Sleep(time.Millisecond) {
		s, err := frontend.Dial(x.ctx, x.target.Socket)
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(end) {
			return s, err
		}
	}
}

// acked is a session with REPLY_ACK and nothing set up.
func (x *rig) acked() *frontend.Session {
	x.needsProtocol(protocol.ProtocolReplyAck, "REPLY_ACK")
	s := x.session()
	_, err := s.GetFeatures()
	x.must(err)
	offered, err := s.GetProtocolFeatures()
	x.must(err)
	x.must(s.SetProtocolFeatures(offered & (1<<protocol.ProtocolReplyAck | 1<<protocol.ProtocolMQ | 1<<protocol.ProtocolConfig |
		1<<protocol.ProtocolConfigureMemSlots | 1<<protocol.ProtocolBackendReq)))
	x.must(s.SetOwner())
	return s
}

// connect negotiates and does not start. What the back-end cannot do is skipped.
func (x *rig) connect(o frontend.Options) *frontend.Disk {
	x.fit(&o)
	s := x.session()
	o.Timeout = x.patience
	d, err := frontend.Connect(s, o)
	x.must(err)
	// A case may leave the session in any state.
	x.cleanup(func() {
		s.Interrupt()
		_ = d.Close()
	})
	return d
}

func (x *rig) fit(o *frontend.Options) {
	switch {
	case o.Queues > x.peer.queues:
		x.skipf("it takes %d queues, the back-end has %d", o.Queues, x.peer.queues)
	case o.QueueSize > x.peer.maxQueueSize:
		x.skipf("it takes a queue of %d, the back-end has %d at most", o.QueueSize, x.peer.maxQueueSize)
	case o.MemorySlots && x.peer.slots < len(o.Layout):
		x.skipf("it takes %d memory slots, the back-end has %d", len(o.Layout), x.peer.slots)
	}
	if o.MemorySlots {
		x.needsProtocol(protocol.ProtocolConfigureMemSlots, "CONFIGURE_MEM_SLOTS")
	}
	if o.QueueSize == 0 {
		o.QueueSize = min(128, x.peer.maxQueueSize)
	}
}

// open negotiates and starts.
func (x *rig) open(o frontend.Options) *frontend.Disk {
	d := x.connect(o)
	x.must(d.Start())
	return d
}

// share does what comes before the rings: features and memory.
func (x *rig) share(d *frontend.Disk) {
	x.must(d.Session.SetFeatures(d.Features))
	table, fds, err := d.Memory.Table()
	x.must(err)
	x.must(d.Session.SetMemTable(table, fds...))
}

// place tells the back-end where a ring is, with notifiers of the caller's choice
// (-1: none), and neither kicks nor enables it. It goes on at the used index, as
// QEMU has it when a back-end died.
func (x *rig) place(d *frontend.Disk, q *frontend.Queue, kick, call int) {
	i := uint32(q.Index())
	x.must(d.Session.SetVringNum(i, uint32(q.Ring.Size())))
	x.must(d.Session.SetVringBase(i, uint32(q.Ring.UsedIndex()+uint16(q.Ring.Pending()))))
	x.must(d.Session.SetVringAddr(q.Ring.Addr(i)))
	x.must(d.Session.SetVringErr(uint8(i), q.Err.FD()))
	x.must(d.Session.SetVringCall(uint8(i), call))
	x.must(d.Session.SetVringKick(uint8(i), kick))
}

// alive is a question that a session in any state answers.
func (x *rig) alive(s *frontend.Session) {
	if _, err := s.GetFeatures(); err != nil {
		x.fatalf("the session is gone: %v", err)
	}
}

// submit puts requests into the ring and kicks.
func (x *rig) submit(q *frontend.Queue, requests ...*frontend.Request) {
	for _, r := range requests {
		x.must(q.Submit(r))
	}
	x.must(q.Kick.Signal())
}

// drain waits for n requests, all of them successful.
func (x *rig) drain(q *frontend.Queue, n int) {
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
	x.alive(d.Session) // whatever was sent before has been acted upon
	readable(q.Err.FD(), silence)
	if n := q.Ring.Pending(); n != 0 {
		x.errorf("the back-end completed %d requests", n)
	}
}

// silent is untouched, and there is no notification either.
func (x *rig) silent(d *frontend.Disk, q *frontend.Queue) {
	x.untouched(d, q)
	if readable(q.Call.FD(), 0) {
		x.errorf("the back-end notified")
	}
}

// request makes one with n bytes of data.
func (x *rig) request(q *frontend.Queue, typ uint32, sector uint64, n int) *frontend.Request {
	r, err := q.NewRequest(n)
	x.must(err)
	r.Type, r.Sector = typ, sector
	return r
}

// read is a request for the i-th block.
func (x *rig) read(q *frontend.Queue, i int) *frontend.Request {
	return x.request(q, frontend.TypeIn, x.sector(i), x.peer.block)
}

// sector is where the i-th block begins.
func (x *rig) sector(i int) uint64 { return uint64(i * x.peer.block / frontend.SectorSize) }

func random(seed, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// verify writes and reads back. On a read-only disk it reads.
func (x *rig) verify(q *frontend.Queue, off int64, data []byte) {
	if !x.peer.readOnly() {
		if _, err := q.WriteAt(data, off); err != nil {
			x.fatalf("%v", err)
		}
	}
	x.verifyRead(q, off, data)
}

// verifyRead checks what is on the disk. On a read-only disk nobody knows.
func (x *rig) verifyRead(q *frontend.Queue, off int64, data []byte) {
	got := make([]byte, len(data))
	if _, err := q.ReadAt(got, off); err != nil {
		x.fatalf("%v", err)
	}
	if !x.peer.readOnly() && !bytes.Equal(got, data) {
		x.fatalf("%d bytes at %d read back differently", len(data), off)
	}
}

// healthy is the session that follows each case.
func healthy(x *rig) {
	queues := min(2, x.peer.queues)
	d := x.open(frontend.Options{Queues: queues})
	for i, q := range d.Queues() {
		x.verify(q, int64(i)<<20, random(i, 96<<10))
		if d.Has(frontend.FeatureFlush) {
			x.must(q.Flush())
		}
	}
	x.must(d.Stop())
	x.must(d.Close())
}

// awaitListener waits until the back-end accepts connections, and tells whether it
// had to: then it was gone, or is.
func (x *rig) awaitListener() (gone bool) {
	for end := time.Now().Add(x.patience); time.Now().Before(end) && x.ctx.Err() == nil; {
		c, err := (&net.Dialer{}).DialContext(x.ctx, "unix", x.target.Socket)
		if err == nil {
			_ = c.Close()
			return gone
		}
		if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT) {
			return gone
		}
		gone = true
		time.Sleep(5 * time.Millisecond) // there is nothing to wait on
	}
	return gone
}

// restart ends the back-end and waits for the next one.
func (x *rig) restart() {
	if x.target.Restart == nil {
		x.skipf("there is no way to restart the back-end")
	}
	x.must(x.target.Restart(x.ctx))
	if !x.awaitSession() {
		x.fatalf("the back-end that was restarted does not answer within %v", x.patience)
	}
}

// awaitSession waits until somebody answers; a process on its way out, or in, may
// accept connections and drop them.
func (x *rig) awaitSession() bool {
	for end := time.Now().Add(x.patience); time.Now().Before(end) && x.ctx.Err() == nil; {
		if s, err := frontend.Dial(x.ctx, x.target.Socket); err == nil {
			s.SetTimeout(x.patience)
			_, err := s.GetFeatures()
			_ = s.Close()
			if err == nil {
				return true
			}
		}
		time.Sleep(5 * time.Millisecond) // there is nothing to wait on
	}
	return false
}
