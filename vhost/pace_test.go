package vhost_test

import (
	"sync/atomic"
	"testing"

	"sealblk/vhost"
	"sealblk/vhost/frontend"
)

// held is a device that gives out the first of its completions and keeps the others
// until gate is closed.
type held struct {
	vhost.Device
	gate chan struct{}
}

type heldQueue struct {
	vhost.Queue
	gate  chan struct{}
	given atomic.Int32
}

func (h held) OpenQueue(cfg vhost.QueueConfig) (vhost.Queue, error) {
	q, err := h.Device.OpenQueue(cfg)
	return &heldQueue{Queue: q, gate: h.gate}, err
}

func (q *heldQueue) Poll(done []*vhost.Request) int {
	if q.given.Load() > 0 {
		<-q.gate
	}
	n := q.Queue.Poll(done)
	q.given.Add(int32(n))
	return n
}

// TestFirstOfManyIsShownAtOnce: of the requests that a device finished together, the
// driver sees the first before the worker deals with the others.
func TestFirstOfManyIsShownAtOnce(t *testing.T) {
	dev, fault := newDevice(t)
	h := held{dev, make(chan struct{})}
	d, _ := start(t, h, frontend.Options{})
	q := d.Queue(0)
	const many = 8
	fault.Hold()
	for i := range uint64(many) {
		submit(t, q, request(t, q, frontend.TypeIn, i*8, 4096))
	}
	until(t, "all requests in flight", func() bool { return fault.InFlight() == many })
	fault.Resume()
	waitDone(t, q) // the worker stands at the gate by then, or has nothing to show
	close(h.gate)
	for range many - 1 {
		waitDone(t, q)
	}
}
