package file

import "golang.org/x/sys/unix"

// briefBytes is how much a call may move that the scheduler is not told of: some ten
// microseconds' worth.
const briefBytes = 128 << 10

// inline is the engine that makes each call as it is pushed, on the queue's thread. A
// request is complete when push returns.
//
// A call that ends with EAGAIN is made again at once, for a millisecond or so in all: files
// in memory do not say that (for want of memory they say ENOMEM or ENOSPC), and a pause
// would hold up all requests of the queue.
type inline struct {
	fd   int
	todo []*op
	done []*op
}

func newInline(fd, depth int) *inline {
	return &inline{fd: fd, todo: make([]*op, 0, depth), done: make([]*op, 0, depth)}
}

func (e *inline) start(o *op) { e.todo = append(e.todo, o) }

func (e *inline) push() {
	for _, o := range e.todo {
		for !o.advance(e.do(&o.call, o.left)) {
		}
		e.done = append(e.done, o)
	}
	clear(e.todo)
	e.todo = e.todo[:0]
}

func (e *inline) do(c *call, n int64) int32 {
	switch {
	case n > briefBytes || c.rwf != 0:
	case c.kind == callRead:
		return transferBriefly(unix.SYS_PREADV2, e.fd, c.iov, c.off, 0)
	case c.kind == callWrite:
		return transferBriefly(unix.SYS_PWRITEV2, e.fd, c.iov, c.off, 0)
	}
	return c.do(e.fd)
}

func (e *inline) reap(q *queue) {
	for _, o := range e.done {
		q.finish(o)
	}
	clear(e.done)
	e.done = e.done[:0]
}

func (e *inline) waitFD() int { return -1 }

func (e *inline) close() error { return nil }
