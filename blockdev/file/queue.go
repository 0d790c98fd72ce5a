package file

import (
	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/internal/ready"
)

// engine makes the system calls of one queue.
type engine interface {
	// start makes the call of o at the next push, or before.
	start(o *op)
	push()
	// reap hands operations that are complete to the queue, and makes the calls
	// that the others need next.
	reap(q *queue)
	waitFD() int
	close() error
}

// iovInitial is the number of buffers that an operation has room for at first.
const iovInitial = zerosIovecs

// queue is a blockdev.Queue over an engine.
type queue struct {
	dev  *backing
	info blockdev.Info
	eng  engine
	ops  []op
	free []*op
	done ready.List
}

func newQueue(b *backing, cfg blockdev.QueueConfig) (*queue, error) {
	depth := max(1, cfg.Depth)
	q := &queue{dev: b, info: b.Info(), ops: make([]op, depth), done: ready.New(depth)}
	iov := make([]unix.Iovec, depth*iovInitial)
	for i := range q.ops {
		q.ops[i] = op{dev: b, index: uint64(i), call: call{iov: iov[i*iovInitial : i*iovInitial : (i+1)*iovInitial]}}
		q.free = append(q.free, &q.ops[i])
	}
	var err error
	switch b.engine {
	case EngineUring:
		q.eng, err = newRing(b, q.ops, cfg.Memory)
		if err != nil && b.fallBack {
			q.eng, err = newPool(b, depth)
		}
	case EngineInline:
		q.eng = newInline(b.fd, depth)
	default:
		q.eng, err = newPool(b, depth)
	}
	if err != nil {
		return nil, err
	}
	return q, nil
}

// Submit hands over requests. One beyond the depth of the queue fails with EAGAIN.
func (q *queue) Submit(reqs ...*blockdev.Request) {
	q.info.Capacity = q.dev.capacity.Load()
	for _, r := range reqs {
		if err := r.Check(&q.info); err != nil {
			q.done.Push(r, err)
			continue
		}
		n := len(q.free)
		if n == 0 {
			q.done.Push(r, unix.EAGAIN)
			continue
		}
		o := q.free[n-1]
		q.free = q.free[:n-1]
		if o.begin(r) {
			q.finish(o)
			continue
		}
		q.eng.start(o)
	}
}

// finish hands a complete operation's request back.
func (q *queue) finish(o *op) {
	q.done.Push(o.req, o.err)
	// The buffers are the submitter's again: do not keep them alive.
	o.req = nil
	clear(o.call.iov)
	q.free = append(q.free, o)
}

// Push hands what was submitted to the kernel.
func (q *queue) Push() { q.eng.push() }

// Poll stores completed requests in done.
func (q *queue) Poll(done []*blockdev.Request) int {
	q.eng.reap(q)
	return q.done.Pop(done)
}

// WaitFD polls readable when Poll has work.
func (q *queue) WaitFD() int { return q.eng.waitFD() }

// Close frees the queue.
func (q *queue) Close() error {
	if q.eng == nil {
		return blockdev.ErrClosed
	}
	err := q.eng.close()
	q.eng = nil
	q.dev.queues.Add(-1)
	return err
}
