// Package ready holds the requests of a queue that are complete and wait for
// Poll.
package ready

import "sealblk/blockdev"

// List is a first-in first-out list of requests. It belongs to one queue.
type List struct {
	reqs []*blockdev.Request
	head int
}

// New makes a list that holds depth requests without allocating again.
func New(depth int) List { return List{reqs: make([]*blockdev.Request, 0, depth)} }

// Push adds r, which completes with err. It allocates only when the submitter has
// more requests in flight than it announced.
func (l *List) Push(r *blockdev.Request, err error) {
	r.Err = err
	if len(l.reqs) == cap(l.reqs) && l.head > 0 {
		n := copy(l.reqs, l.reqs[l.head:])
		l.reqs, l.head = l.reqs[:n], 0
	}
	l.reqs = append(l.reqs, r)
}

// Pop moves requests to done and returns how many.
func (l *List) Pop(done []*blockdev.Request) int {
	n := copy(done, l.reqs[l.head:])
	clear(l.reqs[l.head : l.head+n])
	if l.head += n; l.head == len(l.reqs) {
		l.reqs, l.head = l.reqs[:0], 0
	}
	return n
}

// Len is the number of requests in the list.
func (l *List) Len() int { return len(l.reqs) - l.head }
