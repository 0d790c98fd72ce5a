package file

import (
	"fmt"
	"sync"
	"time"

	"sealblk/internal/eventfd"
)

// maxWorkers is the number of system calls that a pool makes at the same time.
const maxWorkers = 16

// pool is the engine over goroutines that block in system calls.
type pool struct {
	do      func(*call) int32 // tests put one in its place that is refused
	todo    chan *op          // has room for every operation of the queue
	waiting []*op             // started, not pushed
	wake    *eventfd.FD
	workers sync.WaitGroup

	mu sync.Mutex
	// done are complete; wake is signalled if and only if there are any.
	done []*op
}

// newPool makes a pool for depth operations.
func newPool(b *backing, depth int) (*pool, error) {
	wake, err := eventfd.New()
	if err != nil {
		return nil, err
	}
	p := &pool{
		do: func(c *call) int32 { return c.do(b.fd) }, wake: wake,
		todo: make(chan *op, depth), done: make([]*op, 0, depth), waiting: make([]*op, 0, depth),
	}
	for range min(depth, maxWorkers) {
		p.workers.Go(p.work)
	}
	return p, nil
}

func (p *pool) work() {
	for o := range p.todo {
		for !o.advance(p.do(&o.call)) {
			pause(o)
		}
		p.complete(o)
	}
}

// pause waits before a call that ended with EAGAIN is made again. The call was one that
// may block, so it did not find out just now that it would have to: what it says is that
// there is nothing to wait on, as FUSE and network file systems and stacked block drivers
// may. The other threads go on meanwhile.
func pause(o *op) {
	if o.again > 0 {
		time.Sleep(againPause)
	}
}

func (p *pool) complete(o *op) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, o)
	if len(p.done) == 1 {
		must(p.wake.Signal())
	}
}

func (p *pool) start(o *op) { p.waiting = append(p.waiting, o) }

func (p *pool) push() {
	for _, o := range p.waiting {
		p.todo <- o
	}
	clear(p.waiting)
	p.waiting = p.waiting[:0]
}

func (p *pool) reap(q *queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.done) == 0 {
		return
	}
	_, err := p.wake.Clear()
	must(err)
	for _, o := range p.done {
		q.finish(o)
	}
	clear(p.done)
	p.done = p.done[:0]
}

// must is for signals, which fail only if the descriptor is not ours any more. A
// lost one would leave the submitter asleep for ever.
func must(err error) {
	if err != nil {
		panic(fmt.Errorf("signal completion: %w", err))
	}
}

func (p *pool) waitFD() int { return p.wake.FD() }

func (p *pool) close() error {
	close(p.todo)
	p.workers.Wait()
	return p.wake.Close()
}
