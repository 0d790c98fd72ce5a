package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/internal/eventfd"
)

// fate is what a completion from below becomes.
type fate struct {
	whole *blockdev.Request
	verdict
}

// late is a completion that is held back.
type late struct {
	req   *blockdev.Request
	due   time.Time
	stuck int
}

// queue keeps what the queue below completed in a pool until it is its turn.
type queue struct {
	dev   *Device
	lower blockdev.Queue
	rng   *rand.Rand
	pass  []*blockdev.Request
	tmp   []*blockdev.Request
	pool  []*blockdev.Request
	// fates are of the requests below that rules have marked, by themselves or by
	// what stands in for a part of them.
	fates map[*blockdev.Request]fate
	limbo []late
	event *eventfd.FD // nil unless Async
	wait  int         // epoll of event and the queue below, or its WaitFD
	mine  int         // requests that have not been handed back
}

func newQueue(d *Device, lower blockdev.Queue, depth int) (*queue, error) {
	q := &queue{
		dev: d, lower: lower,
		rng:   rand.New(rand.NewPCG(d.opts.Seed, 1)),
		pass:  make([]*blockdev.Request, 0, depth),
		tmp:   make([]*blockdev.Request, depth),
		pool:  make([]*blockdev.Request, 0, depth),
		fates: make(map[*blockdev.Request]fate),
		wait:  lower.WaitFD(),
	}
	if !d.opts.Async {
		return q, nil
	}
	if err := q.openEvents(); err != nil {
		return nil, errors.Join(fmt.Errorf("open events of queue: %w", err), q.closeEvents())
	}
	return q, nil
}

func (q *queue) openEvents() (err error) {
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

func (q *queue) closeEvents() error {
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
func (q *queue) wake() {
	if q.event == nil {
		return
	}
	if err := q.event.Signal(); err != nil {
		panic(err)
	}
}

func (q *queue) clearWake() {
	if q.event == nil {
		return
	}
	if _, err := q.event.Clear(); err != nil {
		panic(err)
	}
}

func (q *queue) Submit(reqs ...*blockdev.Request) {
	q.mine += len(reqs)
	for _, r := range reqs {
		v, hook := q.dev.admit(r)
		if hook != nil && v.err == nil {
			v.err = hook(r)
		}
		q.send(r, v)
	}
	q.lower.Submit(q.pass...)
	q.pass = q.pass[:0]
}

// send passes on as much of a request as is to happen.
func (q *queue) send(r *blockdev.Request, v verdict) {
	if v == (verdict{}) {
		q.pass = append(q.pass, r)
		return
	}
	below := r
	if v.err != nil {
		below = q.effect(r, v.effect)
	}
	if below == nil {
		r.Err = v.err
		q.keep(r, v)
		return
	}
	q.fates[below] = fate{r, v}
	q.pass = append(q.pass, below)
}

// effect is the request for what happens below of one that fails: nil for nothing.
func (q *queue) effect(r *blockdev.Request, e Effect) *blockdev.Request {
	block := int64(q.dev.Info().LogicalBlockSize)
	blocks := r.Length / block
	switch {
	case e == All:
		return r
	case e == Half && r.Op <= blockdev.Write:
		return part(r, 0, blocks/2*block)
	case e == Torn && r.Op != blockdev.Flush && blocks > 0:
		from := q.rng.Int64N(blocks)
		return part(r, from*block, q.rng.Int64N(blocks-from+1)*block)
	}
	return nil
}

// part is a request for n bytes of r, from a byte of it on; nil for none.
func part(r *blockdev.Request, from, n int64) *blockdev.Request {
	if n <= 0 {
		return nil
	}
	p := &blockdev.Request{Op: r.Op, FUA: r.FUA, MayUnmap: r.MayUnmap, Offset: r.Offset + from, Length: n}
	for _, b := range r.Buffers {
		skip := min(from, int64(len(b)))
		take := min(n, int64(len(b))-skip)
		if take > 0 {
			p.Buffers = append(p.Buffers, b[skip:skip+take])
		}
		from, n = from-skip, n-take
	}
	return p
}

func (q *queue) Push() {
	q.lower.Push()
	q.wake()
}

func (q *queue) Poll(done []*blockdev.Request) int {
	q.clearWake()
	q.collect()
	q.ripen()
	n, held := q.dev.grant(min(len(done), q.share()))
	for i := range n {
		at := q.pick()
		done[i] = q.pool[at]
		q.pool = append(q.pool[:at], q.pool[at+1:]...)
	}
	if len(q.pool) > 0 && !held {
		q.wake()
	}
	q.mine -= n
	return n
}

// collect takes what the queue below has completed.
func (q *queue) collect() {
	hook := q.dev.doneHook()
	for {
		n := q.lower.Poll(q.tmp)
		if n == 0 {
			return
		}
		for _, r := range q.tmp[:n] {
			f, marked := q.fates[r]
			if marked {
				delete(q.fates, r)
				r = f.whole
			}
			if marked && f.err != nil {
				r.Err = f.err
			}
			if hook != nil {
				hook(r)
			}
			q.keep(r, f.verdict)
		}
	}
}

// keep puts a request that is done where its verdict says.
func (q *queue) keep(r *blockdev.Request, v verdict) {
	if v.stuck == 0 && v.delay == 0 {
		q.pool = append(q.pool, r)
		return
	}
	q.limbo = append(q.limbo, late{r, time.Now().Add(v.delay), v.stuck})
	if v.delay > 0 {
		time.AfterFunc(v.delay, q.dev.wakeAll)
	}
}

// ripen moves what need not be held back any more.
func (q *queue) ripen() {
	freed, now := q.dev.unstuck(), time.Now()
	keep := q.limbo[:0]
	for _, l := range q.limbo {
		if l.stuck > freed || l.due.After(now) {
			keep = append(keep, l)
		} else {
			q.pool = append(q.pool, l.req)
		}
	}
	q.limbo = keep
}

// share is how many requests this Poll would complete.
func (q *queue) share() int {
	if q.dev.opts.Async {
		return q.rng.IntN(len(q.pool) + 1)
	}
	return len(q.pool)
}

// pick is the place in the pool of the request that is next.
func (q *queue) pick() int {
	switch q.dev.opts.Order {
	case Reversed:
		return len(q.pool) - 1
	case Shuffled:
		return q.rng.IntN(len(q.pool))
	default:
		return 0
	}
}

func (q *queue) WaitFD() int { return q.wait }

// Close waits for requests in flight, as long as they are held, and tells of them: a
// test knows whether it gave up any.
func (q *queue) Close() error {
	var errs [4]error
	if q.mine > 0 {
		errs[0] = errors.New("close queue: requests are in flight")
	}
	errs[1] = q.giveUp()
	q.dev.mu.Lock()
	delete(q.dev.queues, q)
	q.dev.mu.Unlock()
	if q.dev.opts.Async {
		errs[2] = q.closeEvents()
	}
	errs[3] = q.lower.Close()
	return errors.Join(errs[:]...)
}

func (q *queue) giveUp() error {
	q.Push()
	for q.mine > 0 && q.event != nil {
		if q.Poll(q.tmp) > 0 {
			continue
		}
		ready := []unix.PollFd{{Fd: int32(q.wait), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil && err != unix.EINTR {
			return err
		}
	}
	return nil
}
