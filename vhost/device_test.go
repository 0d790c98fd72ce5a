package vhost_test

import (
	"testing"

	"sealblk/vhost"
	"sealblk/vhost/frontend"
	"sealblk/vhost/virtqueue"
)

// copier is the smallest device: it answers each request with a byte, when it is
// polled, as a layer that decrypts writes to the guest.
type copier struct {
	// idle, unless it is nil, takes a value when two requests were served and the
	// worker is about to sleep, which it does not before resume gives one.
	idle, resume chan struct{}
}

func (c *copier) Features() uint64 {
	return 1<<virtqueue.FeatureVersion1 | 1<<virtqueue.FeatureEventIdx
}
func (c *copier) NumQueues() int                { return 1 }
func (c *copier) MaxQueueSize() int             { return 256 }
func (c *copier) ReadConfig([]byte, int)        {}
func (c *copier) WriteConfig([]byte, int) error { return nil }
func (c *copier) OpenQueue(vhost.QueueConfig) (vhost.Queue, error) {
	return &copierQueue{device: c}, nil
}

type copierQueue struct {
	device *copier
	got    []*vhost.Request
	served int
	quiet  int // how often in a row there was nothing
}

func (q *copierQueue) Submit(r *vhost.Request) error { q.got = append(q.got, r); return nil }
func (q *copierQueue) Push()                         {}
func (q *copierQueue) WaitFD() int                   { return -1 }
func (q *copierQueue) Close() error                  { return nil }

func (q *copierQueue) Poll(done []*vhost.Request) (n int) {
	for _, r := range q.got {
		q.got = q.got[1:]
		last := r.Writable[len(r.Writable)-1]
		last[len(last)-1] = 0
		r.Written = 1
		done[n] = r
		n++
	}
	if n > 0 {
		q.served, q.quiet = q.served+n, 0
		return n
	}
	if q.quiet++; q.quiet == 1 && q.served == 2 && q.device.idle != nil {
		q.device.idle <- struct{}{}
		<-q.device.resume
	}
	return 0
}

// TestRequestBeforeSleepIsSeen puts a request into the ring between the worker's
// last look at it and its wish for a kick: the driver is not obliged to kick.
func TestRequestBeforeSleepIsSeen(t *testing.T) {
	for name, without := range map[string]uint64{"event index": 0, "flags": 1 << virtqueue.FeatureEventIdx} {
		t.Run(name, func(t *testing.T) {
			dev := &copier{idle: make(chan struct{}), resume: make(chan struct{})}
			d, _ := start(t, dev, frontend.Options{Without: without, QueueSize: 16})
			q := d.Queue(0)
			r := request(t, q, frontend.TypeFlush, 0, 0)
			must(t, q.Do(r))
			until(t, "the worker to sleep", func() bool { return asksForKick(q, without == 0) })
			must(t, q.Do(r))
			<-dev.idle
			kicks := q.Counters.Kicks
			must(t, q.Submit(r))
			must(t, q.Notify())
			if q.Counters.Kicks != kicks {
				t.Error("the driver kicked, so this test shows nothing")
			}
			dev.resume <- struct{}{}
			waitDone(t, q)
		})
	}
}

// asksForKick tells whether the device wants to be notified of the second request.
func asksForKick(q *frontend.Queue, events bool) bool {
	used := q.Ring.Used.Bytes
	if events {
		return used[virtqueue.AvailEventOffset(16)] == 1
	}
	return used[virtqueue.UsedFlagsOffset] == 0
}
