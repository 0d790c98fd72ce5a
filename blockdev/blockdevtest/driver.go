package blockdevtest

import (
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

// patience is how long a request may take before it counts as lost.
const patience = 20 * time.Second

// T is the part of *testing.T and *rapid.T that a Driver needs.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Driver runs requests on one queue. It fails the test when the queue loses a
// request, completes one twice, changes a request's fields, keeps the slice it was
// given, or says that it has no work when it has.
type Driver struct {
	t        T
	queue    blockdev.Queue
	inflight map[*blockdev.Request]shape
	batch    []*blockdev.Request
	done     []*blockdev.Request
}

// shape is what a queue must leave alone in a request.
type shape struct {
	op             blockdev.Op
	offset, length int64
	tag            uint64
	buffers        int
}

func shapeOf(r *blockdev.Request) shape {
	return shape{r.Op, r.Offset, r.Length, r.Tag, len(r.Buffers)}
}

// NewDriver makes a driver of q that takes up to burst completions from one Poll.
func NewDriver(t T, q blockdev.Queue, burst int) *Driver {
	return &Driver{
		t: t, queue: q,
		inflight: make(map[*blockdev.Request]shape),
		done:     make([]*blockdev.Request, burst),
	}
}

// Submit hands requests to the queue without pushing them.
func (d *Driver) Submit(reqs ...*blockdev.Request) {
	d.t.Helper()
	d.batch = append(d.batch[:0], reqs...)
	for _, r := range reqs {
		if _, twice := d.inflight[r]; twice {
			d.t.Fatalf("test error: request submitted twice")
		}
		d.inflight[r] = shapeOf(r)
	}
	d.queue.Submit(d.batch...)
	clear(d.batch)
}

// Push hands what was submitted to the kernel.
func (d *Driver) Push() { d.queue.Push() }

// Reap polls once and returns the number of requests that completed.
func (d *Driver) Reap() int {
	d.t.Helper()
	clear(d.done)
	n := d.queue.Poll(d.done)
	for _, r := range d.done[:n] {
		was, ok := d.inflight[r]
		if !ok {
			d.t.Fatalf("the queue completed a request that is not in flight: %+v", r)
		}
		if now := shapeOf(r); now != was {
			d.t.Fatalf("the queue changed a request from %+v to %+v", was, now)
		}
		delete(d.inflight, r)
	}
	return n
}

// InFlight is the number of requests that have not completed.
func (d *Driver) InFlight() int { return len(d.inflight) }

// Finish waits until nothing is in flight.
func (d *Driver) Finish() {
	d.t.Helper()
	for len(d.inflight) > 0 {
		if d.Reap() == 0 && len(d.inflight) > 0 {
			d.sleep()
		}
	}
	if n := d.Reap(); n != 0 {
		d.t.Fatalf("the queue completed %d requests more than it was given", n)
	}
}

func (d *Driver) sleep() {
	d.t.Helper()
	fd := d.queue.WaitFD()
	if fd < 0 {
		d.t.Fatalf("%d requests are lost: Poll has no work and there is nothing to wait for", len(d.inflight))
	}
	if !readable(fd, patience) {
		d.t.Fatalf("%d requests are lost: the wait descriptor stayed silent for %v", len(d.inflight), patience)
	}
}

// Run submits requests in one batch and waits for all of them.
func (d *Driver) Run(reqs ...*blockdev.Request) {
	d.t.Helper()
	d.Submit(reqs...)
	d.Push()
	d.Finish()
}

// Do runs one request and returns its error.
func (d *Driver) Do(r *blockdev.Request) error {
	d.t.Helper()
	d.Run(r)
	return r.Err
}

// Must runs requests in one batch and fails the test when one of them fails.
func (d *Driver) Must(reqs ...*blockdev.Request) {
	d.t.Helper()
	d.Run(reqs...)
	for _, r := range reqs {
		if r.Err != nil {
			d.t.Fatalf("request %d at %d+%d: %v", r.Op, r.Offset, r.Length, r.Err)
		}
	}
}

// Write stores data at offset.
func (d *Driver) Write(offset int64, data []byte) {
	d.t.Helper()
	d.Must(transfer(blockdev.Write, offset, data))
}

// Read returns length bytes at offset.
func (d *Driver) Read(offset, length int64) []byte {
	d.t.Helper()
	data := make([]byte, length)
	d.Must(transfer(blockdev.Read, offset, data))
	return data
}

// readable waits until fd is readable.
func readable(fd int, patience time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	deadline := time.Now().Add(patience)
	for {
		left := max(0, time.Until(deadline))
		n, err := unix.Poll(fds, int(left.Milliseconds()))
		if err != unix.EINTR {
			return n == 1
		}
	}
}

// transfer makes a read or write of one buffer.
func transfer(op blockdev.Op, offset int64, data []byte) *blockdev.Request {
	return &blockdev.Request{Op: op, Offset: offset, Length: int64(len(data)), Buffers: [][]byte{data}}
}
