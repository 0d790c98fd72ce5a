package fault

import (
	"errors"
	"math/rand/v2"
	"sync"

	"sealblk/blockdev"
)

// Order is the order in which a Device completes requests.
type Order int

const (
	// InOrder: as the device below does.
	InOrder Order = iota
	// Reversed: of those that are complete, the last submitted first.
	Reversed
	// Shuffled: at random.
	Shuffled
)

// Options say how a Device behaves for its whole life.
type Options struct {
	Order Order
	// Seed of Shuffled, Async and rules.
	Seed uint64
	// Async: requests complete after Push, a random number of them at each Poll,
	// and WaitFD tells when; without it the device below decides.
	Async bool
}

// Device is a device over another one that misbehaves as told. Its methods may be
// called while requests are in flight.
type Device struct {
	lower blockdev.Device
	opts  Options

	mu        sync.Mutex
	onSubmit  func(*blockdev.Request) error
	onDone    func(*blockdev.Request)
	rules     []*armed
	rng       *rand.Rand
	stuck     int // so many were stuck, of which
	freed     int // the first so many may complete
	held      bool
	permits   int
	inflight  int
	submitted int
	queues    map[*queue]bool
}

// New makes a Device over lower, which it closes when it is closed.
func New(lower blockdev.Device, opts Options) *Device {
	return &Device{lower: lower, opts: opts, queues: make(map[*queue]bool), rng: rand.New(rand.NewPCG(opts.Seed, 2))}
}

// OnSubmit calls hook for each request before it goes on; an error completes it
// with that error instead. The hook runs on the goroutine of the queue.
func (d *Device) OnSubmit(hook func(*blockdev.Request) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onSubmit = hook
}

// OnDone calls hook for each request that the device below completed, before the
// submitter learns of it.
func (d *Device) OnDone(hook func(*blockdev.Request)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onDone = hook
}

// Hold stops completions; the device must be Async.
func (d *Device) Hold() {
	if !d.opts.Async {
		panic("fault: Hold needs an Async device")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held, d.permits = true, 0
}

// Release lets n held requests complete.
func (d *Device) Release(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.permits += n
	d.wakeLocked()
}

// Resume ends Hold.
func (d *Device) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = false
	d.wakeLocked()
}

// InFlight is the number of requests that have not been handed back.
func (d *Device) InFlight() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inflight
}

// Submitted is the number of requests so far.
func (d *Device) Submitted() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.submitted
}

func (d *Device) wakeLocked() {
	for q := range d.queues {
		q.wake()
	}
}

// wakeAll is for timers. A queue that is closed by then is not woken.
func (d *Device) wakeAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wakeLocked()
}

// Info is that of the device below.
func (d *Device) Info() blockdev.Info { return d.lower.Info() }

// OpenQueue opens a queue over one of the device below.
func (d *Device) OpenQueue(cfg blockdev.QueueConfig) (blockdev.Queue, error) {
	lower, err := d.lower.OpenQueue(cfg)
	if err != nil {
		return nil, err
	}
	q, err := newQueue(d, lower, cfg.Depth)
	if err != nil {
		return nil, errors.Join(err, lower.Close())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues[q] = true
	return q, nil
}

// Grow makes the device below larger.
func (d *Device) Grow(capacity int64) error { return blockdev.Grow(d.lower, capacity) }

// Close closes the device below.
func (d *Device) Close() error { return d.lower.Close() }

// admit counts a request and tells what is to become of it.
func (d *Device) admit(r *blockdev.Request) (v verdict, hook func(*blockdev.Request) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inflight++
	d.submitted++
	return d.judgeLocked(r), d.onSubmit
}

func (d *Device) unstuck() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.freed
}

// grant tells how many of n requests may complete now.
func (d *Device) grant(n int) (granted int, held bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held {
		n = min(n, d.permits)
		d.permits -= n
	}
	d.inflight -= n
	return n, d.held
}

func (d *Device) doneHook() func(*blockdev.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.onDone
}
