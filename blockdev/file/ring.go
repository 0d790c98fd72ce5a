package file

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/internal/uring"
)

// maxRingEntries bounds the memory of a ring; larger batches take several calls.
const maxRingEntries = 1024

// againWait is againPause for the kernel.
var againWait = unix.NsecToTimespec(int64(againPause))

// kernelRing is a uring.Ring; tests put one in its place that is refused.
type kernelRing interface {
	SQE() *uring.SQE
	Pending() int
	Submit() error
	Peek(dst []uring.CQE) (int, error)
	FD() int
	Close() error
}

// ring is the engine over io_uring. A user data word is the index of an operation.
type ring struct {
	ring kernelRing
	ops  []op
	file uring.File
	// backlog are operations that found the ring full, first in first out.
	backlog []*op
	// inflight counts calls that were started and have not been completed.
	inflight int
	cqes     [64]uring.CQE
	pinned   pinned
}

func newRing(b *backing, ops []op, memory [][]byte) (*ring, error) {
	entries := min(len(ops), b.ringEntries)
	r, err := uring.New(uring.Config{Entries: entries, Completions: 2 * len(ops)})
	if err != nil {
		return nil, err
	}
	if err := r.RegisterFiles(int32(b.fd)); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	e := &ring{ring: r, ops: ops, file: uring.Fixed(0), backlog: make([]*op, 0, len(ops))}
	e.pinned = pin(r, memory)
	return e, nil
}

func (e *ring) start(o *op) {
	if len(e.backlog) == 0 && e.prepare(o) {
		return
	}
	e.backlog = append(e.backlog, o)
}

// prepare puts the call of o into the ring, unless the kernel takes none now.
func (e *ring) prepare(o *op) bool {
	s := e.ring.SQE()
	if s == nil {
		e.submit()
		if s = e.ring.SQE(); s == nil {
			return false
		}
	}
	e.inflight++
	e.fill(s, o)
	return true
}

func (e *ring) fill(s *uring.SQE, o *op) {
	if o.pausing {
		s.Timeout(&againWait, o.index)
		return
	}
	e.fillCall(s, o)
	if o.again > 0 {
		s.Async()
	}
}

func (e *ring) fillCall(s *uring.SQE, o *op) {
	c, data := &o.call, o.index
	if i, ok := e.pinned.find(c); ok {
		if c.kind == callRead {
			s.ReadFixed(e.file, &c.iov[0], i, c.off, c.rwf, data)
		} else {
			s.WriteFixed(e.file, &c.iov[0], i, c.off, c.rwf, data)
		}
		return
	}
	switch c.kind {
	case callRead:
		s.Readv(e.file, c.iov, c.off, c.rwf, data)
	case callWrite, callZeros:
		s.Writev(e.file, c.iov, c.off, c.rwf, data)
	case callAllocate:
		s.Fallocate(e.file, c.mode, c.off, c.n, data)
	case callSync:
		s.Fdatasync(e.file, data)
	}
}

func (e *ring) submit() {
	if err := e.ring.Submit(); err != nil {
		panic(fmt.Errorf("io_uring queue: %w: what is in flight cannot be known", err))
	}
}

// push submits. If the kernel refuses for want of memory it is asked again when a
// completion wakes the submitter; with none in flight, after a pause here.
func (e *ring) push() {
	for {
		e.unblock()
		if e.ring.Pending() != 0 {
			e.submit()
		}
		if pending := e.ring.Pending(); pending == 0 || pending < e.inflight {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// unblock moves operations from the backlog to the ring.
func (e *ring) unblock() {
	n := 0
	for n < len(e.backlog) && e.prepare(e.backlog[n]) {
		n++
	}
	if n > 0 {
		rest := copy(e.backlog, e.backlog[n:])
		clear(e.backlog[rest:])
		e.backlog = e.backlog[:rest]
	}
}

func (e *ring) reap(q *queue) {
	for {
		n, err := e.ring.Peek(e.cqes[:])
		if err != nil {
			panic(fmt.Errorf("io_uring queue: %w: what is in flight cannot be known", err))
		}
		if n == 0 {
			break
		}
		for _, c := range e.cqes[:n] {
			e.completed(q, c)
		}
	}
	if e.ring.Pending() != 0 || len(e.backlog) != 0 {
		e.push()
	}
}

// completed goes on after a call or a pause.
//
// The kernel tries each call without blocking, and has a thread of its own block in it if
// it would. Older kernels (5.19 still) forget that for large direct transfers, of which a
// part gets none of the requests of a busy block device: EAGAIN, to be made again (liburing
// issues 766 and 1269). The second try goes to the thread straight away, which waits for what
// there is to wait for. If that one says EAGAIN too it is as with a blocking system call:
// there is nothing to wait on, and the ring's timer makes a pause, so that the queue's
// thread is free for other requests.
func (e *ring) completed(q *queue, c uring.CQE) {
	e.inflight--
	o := &e.ops[c.UserData]
	switch {
	case o.pausing:
		o.pausing = false
		e.start(o)
	case o.advance(c.Res):
		q.finish(o)
	default:
		o.pausing = o.again > 1
		e.start(o)
	}
}

func (e *ring) waitFD() int { return e.ring.FD() }

// close waits for the calls that the kernel has, and makes no others.
func (e *ring) close() error {
	return errors.Join(e.drain(), e.ring.Close())
}

func (e *ring) drain() error {
	for e.inflight > e.ring.Pending() {
		n, err := e.ring.Peek(e.cqes[:])
		if err != nil {
			return fmt.Errorf("wait for calls in flight: %w", err)
		}
		if e.inflight -= n; n > 0 {
			continue
		}
		ready := []unix.PollFd{{Fd: int32(e.ring.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for calls in flight: %w", err)
		}
	}
	return nil
}
