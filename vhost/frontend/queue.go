package frontend

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"sealblk/internal/eventfd"

	"golang.org/x/sys/unix"
)

// Queue is a virtqueue that carries block requests. One goroutine at a time uses
// it.
type Queue struct {
	// Ring is the ring below; what is done to it directly is invisible to the queue.
	Ring *Ring
	// Kick, Call and Err are the notifiers that the back-end has copies of.
	Kick, Call, Err *eventfd.FD
	// Counters counts what the queue did.
	Counters Counters

	index    uint32
	base     uint16
	memory   *Memory
	framing  Framing
	polling  bool
	timeout  time.Duration
	hangup   int
	inflight []*Request
	count    int
	chain    []Segment
	scratch  parts
	used     []Used
	sync     *Request
	syncDone [1]*Request
}

// Counters are a queue's counts since it was made.
type Counters struct {
	Submitted uint64
	Kicks     uint64
	Waits     uint64
	Calls     uint64
}

func newQueue(index int, m *Memory, rc RingConfig, o *Options, hangup int) (*Queue, error) {
	ring, err := NewRing(m, rc)
	if err != nil {
		return nil, err
	}
	q := &Queue{
		Ring: ring, index: uint32(index), memory: m, framing: o.Framing, polling: o.Polling, timeout: o.Timeout, hangup: hangup,
		inflight: make([]*Request, rc.Size), chain: make([]Segment, 0, rc.Size), used: make([]Used, rc.Size),
	}
	for _, e := range []**eventfd.FD{&q.Kick, &q.Call, &q.Err} {
		if *e, err = eventfd.New(); err != nil {
			return nil, errors.Join(err, q.close())
		}
	}
	return q, nil
}

func (q *Queue) close() error {
	var errs []error
	for _, e := range []*eventfd.FD{q.Kick, q.Call, q.Err} {
		if e != nil {
			errs = append(errs, e.Close())
		}
	}
	return errors.Join(errs...)
}

// Index is the queue's number.
func (q *Queue) Index() int { return int(q.index) }

// InFlight is how many requests the back-end has.
func (q *Queue) InFlight() int { return q.count }

// NewRequest allocates a request with n bytes of data in the disk's guest memory.
// It is not for the data path, and for one goroutine of the whole disk at a time.
func (q *Queue) NewRequest(n int) (*Request, error) { return NewRequest(q.memory, n) }

// Submit puts a request into the ring and shows it to the back-end. ErrRingFull
// means: poll first. Notify comes after the last Submit of a batch.
func (q *Queue) Submit(r *Request) error {
	if err := q.add(r); err != nil {
		return err
	}
	q.Ring.Publish()
	return nil
}

func (q *Queue) add(r *Request) error {
	chain, readable := r.prepare(q.chain[:0], &q.scratch, q.framing)
	q.chain = chain[:0]
	head, err := q.Ring.Add(chain, readable)
	if err != nil {
		return err
	}
	q.inflight[head] = r
	q.count++
	q.Counters.Submitted++
	return nil
}

// Notify kicks the back-end if it asked for that.
func (q *Queue) Notify() error {
	if !q.Ring.NeedKick() {
		return nil
	}
	q.Counters.Kicks++
	return q.Kick.Signal()
}

// Poll stores completed requests in done and returns how many. It does not wait.
func (q *Queue) Poll(done []*Request) (int, error) {
	n, err := q.Ring.Poll(q.used[:min(len(done), len(q.used))])
	for i, u := range q.used[:n] {
		r := q.inflight[u.Head]
		q.inflight[u.Head] = nil
		if r == nil {
			return i, fmt.Errorf("chain %d was returned without a request: %w", u.Head, ErrBackend)
		}
		r.complete(u.Len)
		done[i] = r
	}
	q.count -= n
	return n, err
}

// Wait is Poll that waits for at least one completion.
func (q *Queue) Wait(done []*Request) (int, error) {
	n, err := q.Poll(done)
	if n > 0 || err != nil {
		return n, err
	}
	q.Counters.Waits++
	deadline := q.deadline()
	if q.polling {
		return q.spin(done, deadline)
	}
	return q.sleep(done, deadline)
}

func (q *Queue) deadline() time.Time {
	if q.timeout == 0 {
		return time.Now().Add(1 << 62)
	}
	return time.Now().Add(q.timeout)
}

// spinsPerCheck is how often spin polls between two looks at the clock and the
// connection, which cost a system call.
const spinsPerCheck = 4096

func (q *Queue) spin(done []*Request, deadline time.Time) (int, error) {
	for {
		for range spinsPerCheck {
			if n, err := q.Poll(done); n > 0 || err != nil {
				return n, err
			}
			runtime.Gosched()
		}
		if err := q.waitCall(0, deadline); err != nil {
			return 0, err
		}
	}
}

func (q *Queue) sleep(done []*Request, deadline time.Time) (int, error) {
	for {
		if !q.Ring.RequestCall() {
			if err := q.waitCall(time.Until(deadline), deadline); err != nil {
				return 0, err
			}
		}
		q.Ring.SuppressCall()
		if n, err := q.Poll(done); n > 0 || err != nil {
			return n, err
		}
	}
}

// waitCall waits until the back-end notifies or is gone. What it completed before
// it went still counts.
func (q *Queue) waitCall(d time.Duration, deadline time.Time) error {
	fds := [2]unix.PollFd{{Fd: int32(q.Call.FD()), Events: unix.POLLIN}, {Fd: int32(q.hangup), Events: unix.POLLRDHUP}}
	ts := unix.NsecToTimespec(int64(max(d, 0)))
	if _, err := unix.Ppoll(fds[:], &ts, nil); err != nil && err != unix.EINTR {
		return fmt.Errorf("wait for notification: %w", err)
	}
	switch {
	case fds[0].Revents != 0:
		q.Counters.Calls++
		_, err := q.Call.Clear()
		return err
	case q.Ring.Pending() > 0:
		return nil
	case fds[1].Revents != 0:
		return ErrDisconnected
	case !time.Now().Before(deadline):
		return ErrTimeout
	}
	return nil
}
