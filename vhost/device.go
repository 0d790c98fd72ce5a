package vhost

import "sealblk/vhost/virtqueue"

// Device is a virtio device: what a session serves. Its methods may be called from
// any goroutine.
type Device interface {
	// Features are the virtio feature bits that it offers, as a mask: its own and
	// those of the ring. The session adds and handles those of vhost-user.
	Features() uint64
	// NumQueues is the number of virtqueues, 1 to 256.
	NumQueues() int
	// MaxQueueSize is the largest size of a virtqueue, a power of two.
	MaxQueueSize() int
	// ReadConfig copies the configuration space from offset on to p. What lies
	// beyond its end is zero.
	ReadConfig(p []byte, offset int)
	// WriteConfig stores p in the configuration space, or refuses it as a whole. No queue
	// is open.
	WriteConfig(p []byte, offset int) error
	// OpenQueue makes the device's side of a virtqueue that starts.
	OpenQueue(QueueConfig) (Queue, error)
}

// Resting is a Device that wants to know when the front-end has stopped all rings
// (GET_VRING_BASE): when a VM stops, is reset, or has been migrated away. All its
// queues are closed then, every request is answered, and the front-end does not yet
// know that the last ring has stopped. Work goes on with the next OpenQueue. The end
// of a session is no such stop.
type Resting interface {
	Rest()
}

// Pausing is a Device that may have to stop for a while. While it is paused no ring has a
// worker and no queue is open: requests stay in their avail rings, and messages of the
// front-end are served as ever, so that it can stop, reset and migrate. Rings that would
// start do so when the pause ends, and not before.
type Pausing interface {
	// Paused tells whether it is paused. OpenQueue fails with ErrPaused then.
	Paused() bool
	// WatchPause has changed called after each change, from any goroutine, until stop
	// has returned.
	WatchPause(changed func()) (stop func())
}

// Remembering is a Device with something that its driver set in the configuration space,
// by SET_CONFIG, and that a front-end which reconnects to another back-end does not set
// again. It is kept with the requests in flight.
type Remembering interface {
	// Memo is what to remember.
	Memo() uint16
	// Remember brings back what Memo was when the back-end before died. If that is not
	// known the device does what is safe.
	Remember(memo uint16, known bool)
}

// Negotiating is a Device whose configuration space depends on what the driver accepts.
type Negotiating interface {
	// Negotiated is called when the front-end has set features (SET_FEATURES) other than
	// those before in its session. No queue is open.
	Negotiated(features uint64)
}

// QueueConfig describes a virtqueue that starts.
type QueueConfig struct {
	Index int
	// Size is the number of requests that may be in flight.
	Size int
	// Features are what the driver accepted.
	Features uint64
}

// Request is a slot: a descriptor chain on its way through a device.
type Request struct {
	virtqueue.Chain
	// Slot numbers the slots of a queue from 0 to Size-1, for the device to keep its
	// own state beside.
	Slot int
	// Written is the number of bytes written to the chain. The device sets it.
	Written uint32
}

// Queue is the device's side of one virtqueue. OpenQueue and all its methods are
// called by one goroutine that is locked to its thread. They do not allocate once
// they are warm.
type Queue interface {
	// Submit takes over a request until Poll returns it. A request that the device
	// refuses but can answer is returned with that answer. An error means that no
	// answer fits in the chain: it is not taken, and the ring is broken.
	Submit(*Request) error
	// Push starts what was submitted.
	Push()
	// Poll stores completed requests in done and returns how many; it does not wait.
	Poll(done []*Request) int
	// WaitFD polls readable when Poll may have work; -1 if nothing is in flight
	// after Push.
	WaitFD() int
	// Close frees the queue. Requests are in flight only if guest memory is gone, be it
	// that a method panicked over that: they are given up, and when Close returns
	// nothing touches their chains any more.
	Close() error
}
