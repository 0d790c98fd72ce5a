package vhost_test

import (
	"slices"
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

// counting is a device that tells how many requests it is started with. It keeps its
// first completion until gate is closed.
type counting struct {
	vhost.Device
	gate chan struct{}
	came chan struct{} // closed when that completion is there
	made chan int      // requests between two starts, from that completion on
}

type countingQueue struct {
	vhost.Queue
	*counting
	open      bool
	submitted int
}

func (c *counting) OpenQueue(cfg vhost.QueueConfig) (vhost.Queue, error) {
	q, err := c.Device.OpenQueue(cfg)
	return &countingQueue{Queue: q, counting: c}, err
}

func (q *countingQueue) Submit(r *vhost.Request) error {
	q.submitted++
	return q.Queue.Submit(r)
}

func (q *countingQueue) Push() {
	if q.open {
		q.made <- q.submitted
	}
	q.submitted = 0
	q.Queue.Push()
}

func (q *countingQueue) Poll(done []*vhost.Request) int {
	n := q.Queue.Poll(done)
	if n > 0 && !q.open {
		q.open = true
		close(q.came)
		<-q.gate
	}
	return n
}

// TestIdleDeviceStartsWithTheFirst: of the requests that wait for a device that has
// nothing to do, it is given one before the worker prepares the others.
func TestIdleDeviceStartsWithTheFirst(t *testing.T) {
	const many = 9
	dev, fault := newDevice(t)
	c := &counting{dev, make(chan struct{}), make(chan struct{}), make(chan int, many)}
	d, _ := start(t, c, frontend.Options{})
	q := d.Queue(0)
	submit(t, q, request(t, q, frontend.TypeIn, 0, 4096))
	<-c.came
	fault.Hold()
	for i := range uint64(many) {
		submit(t, q, request(t, q, frontend.TypeIn, i*8, 4096))
	}
	close(c.gate)
	waitDone(t, q)
	var made []int
	for sum := 0; sum < many; sum += made[len(made)-1] {
		made = append(made, <-c.made)
	}
	if want := []int{1, 4, 4}; !slices.Equal(made, want) {
		t.Errorf("the device was started with %v requests, want %v", made, want)
	}
	fault.Resume()
	for range many {
		waitDone(t, q)
	}
}
