package blockdevtest

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/internal/eventfd"
)

// faultQueue keeps what the queue below completed in a pool until it is its turn.
type faultQueue struct {
	dev   *Fault
	lower blockdev.Queue
	rng   *rand.Rand
	pass  []*blockdev.Request
	tmp   []*blockdev.Request
	pool  []*blockdev.Request
	// parts are the shortened stand-ins for requests that are cut short.
	parts map[*blockdev.Request]*blockdev.Request
	event *eventfd.FD // nil unless Async
	wait  int         // epoll of event and the queue below, or its WaitFD
}

func newFaultQueue(f *Fault, lower blockdev.Queue, depth int) (*faultQueue, error) {
	q := &faultQueue{
		dev: f, lower: lower,
		rng:   rand.New(rand.NewPCG(f.opts.Seed, 1)),
		pass:  make([]*blockdev.Request, 0, depth),
		tmp:   make([]*blockdev.Request, depth),
		pool:  make([]*blockdev.Request, 0, depth),
		parts: make(map[*blockdev.Request]*blockdev.Request),
		wait:  lower.WaitFD(),
	}
	if !f.opts.Async {
		return q, nil
	}
	if err := q.openEvents(); err != nil {
		return nil, errors.Join(fmt.Errorf("open events of queue: %w", err), q.closeEvents())
	}
	return q, nil
}

func (q *faultQueue) openEvents() (err error) {
	q.wait = -1
	if q.event, err = eventfd.New(); err != nil {
		return err
	}
	if q.wait, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	for _, fd := range []int{q.event.FD(), q.lower.WaitFD()} {
		if fd < 0 {
			continue
		}
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(q.wait, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			return err
		}
	}
	return nil
}

func (q *faultQueue) closeEvents() error {
	var errs [2]error
	if q.wait >= 0 {
		errs[0] = unix.Close(q.wait)
	}
	if q.event != nil {
		errs[1] = q.event.Close()
	}
	return errors.Join(errs[:]...)
}

// wake makes the wait descriptor readable. It may be called by any goroutine.
func (q *faultQueue) wake() {
	if q.event == nil {
		return
	}
	if err := q.event.Signal(); err != nil {
		panic(err)
	}
}

func (q *faultQueue) clearWake() {
	if q.event == nil {
		return
	}
	if _, err := q.event.Clear(); err != nil {
		panic(err)
	}
}

func (q *faultQueue) Submit(reqs ...*blockdev.Request) {
	for _, r := range reqs {
		p, hook := q.dev.admit(r)
		err := p.err
		if hook != nil && err == nil {
			err = hook(r)
		}
		switch {
		case p.short && q.shorten(r):
		case err != nil:
			r.Err = err
			q.pool = append(q.pool, r)
		default:
			q.pass = append(q.pass, r)
		}
	}
	q.lower.Submit(q.pass...)
	q.pass = q.pass[:0]
}

// shorten passes the first half of a request on in its place.
func (q *faultQueue) shorten(r *blockdev.Request) bool {
	block := int64(q.dev.Info().LogicalBlockSize)
	half := r.Length / 2 &^ (block - 1)
	if half <= 0 || r.Op > blockdev.Write {
		return false
	}
	part := &blockdev.Request{Op: r.Op, FUA: r.FUA, Offset: r.Offset, Length: half}
	for left := half; left > 0; {
		b := r.Buffers[len(part.Buffers)]
		b = b[:min(int64(len(b)), left)]
		part.Buffers = append(part.Buffers, b)
		left -= int64(len(b))
	}
	q.parts[part] = r
	q.pass = append(q.pass, part)
	return true
}

func (q *faultQueue) Push() {
	q.lower.Push()
	q.wake()
}

func (q *faultQueue) Poll(done []*blockdev.Request) int {
	q.clearWake()
	q.collect()
	n, held := q.dev.grant(min(len(done), q.share()))
	for i := range n {
		at := q.pick()
		done[i] = q.pool[at]
		q.pool = append(q.pool[:at], q.pool[at+1:]...)
	}
	if len(q.pool) > 0 && !held {
		q.wake()
	}
	return n
}

// collect takes what the queue below has completed.
func (q *faultQueue) collect() {
	hook := q.dev.doneHook()
	for {
		n := q.lower.Poll(q.tmp)
		if n == 0 {
			return
		}
		for _, r := range q.tmp[:n] {
			if whole := q.parts[r]; whole != nil {
				delete(q.parts, r)
				r, whole.Err = whole, blockdev.ErrShort
			}
			if hook != nil {
				hook(r)
			}
			q.pool = append(q.pool, r)
		}
	}
}

// share is how many requests this Poll would complete.
func (q *faultQueue) share() int {
	if q.dev.opts.Async {
		return q.rng.IntN(len(q.pool) + 1)
	}
	return len(q.pool)
}

// pick is the place in the pool of the request that is next.
func (q *faultQueue) pick() int {
	switch q.dev.opts.Order {
	case Reversed:
		return len(q.pool) - 1
	case Shuffled:
		return q.rng.IntN(len(q.pool))
	default:
		return 0
	}
}

func (q *faultQueue) WaitFD() int { return q.wait }

func (q *faultQueue) Close() error {
	q.dev.mu.Lock()
	delete(q.dev.queues, q)
	q.dev.mu.Unlock()
	var errs [3]error
	if q.dev.opts.Async {
		errs[0] = q.closeEvents()
	}
	if len(q.pool) > 0 {
		errs[1] = errors.New("close queue: requests are in flight")
	}
	errs[2] = q.lower.Close()
	return errors.Join(errs[:]...)
}
