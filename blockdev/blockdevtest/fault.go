package blockdevtest

import (
	"errors"
	"sync"

	"sealblk/blockdev"
)

// Order is the order in which a Fault completes requests.
type Order int

const (
	// InOrder: as the device below does.
	InOrder Order = iota
	// Reversed: of those that are complete, the last submitted first.
	Reversed
	// Shuffled: at random.
	Shuffled
)

// FaultOptions say how a Fault behaves for its whole life.
type FaultOptions struct {
	Order Order
	// Seed of Shuffled and Async.
	Seed uint64
	// Async: requests complete after Push, a random number of them at each Poll,
	// and WaitFD tells when; without it the device below decides.
	Async bool
}

// Fault is a device over another one that misbehaves as told. Its methods may be
// called while requests are in flight.
type Fault struct {
	lower blockdev.Device
	opts  FaultOptions

	mu        sync.Mutex
	onSubmit  func(*blockdev.Request) error
	onDone    func(*blockdev.Request)
	plans     []plan
	held      bool
	permits   int
	inflight  int
	submitted int
	queues    map[*faultQueue]bool
}

// plan is what happens to the request that comes after some others.
type plan struct {
	wait  int
	err   error
	short bool
}

// NewFault makes a Fault over lower, which it closes when it is closed.
func NewFault(lower blockdev.Device, opts FaultOptions) *Fault {
	return &Fault{lower: lower, opts: opts, queues: make(map[*faultQueue]bool)}
}

// OnSubmit calls hook for each request before it goes on; an error completes it
// with that error instead. The hook runs on the goroutine of the queue.
func (f *Fault) OnSubmit(hook func(*blockdev.Request) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onSubmit = hook
}

// OnDone calls hook for each request that the device below completed, before the
// submitter learns of it.
func (f *Fault) OnDone(hook func(*blockdev.Request)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onDone = hook
}

// FailNth makes the nth request from now fail with err, before it has any effect;
// the next one is the first.
func (f *Fault) FailNth(n int, err error) { f.plan(plan{wait: n, err: err}) }

// ShortNth makes the nth request from now, a read or write, stop after half of its
// blocks and fail with ErrShort.
func (f *Fault) ShortNth(n int) { f.plan(plan{wait: n, err: blockdev.ErrShort, short: true}) }

func (f *Fault) plan(p plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plans = append(f.plans, p)
}

// Hold stops completions; the device must be Async.
func (f *Fault) Hold() {
	if !f.opts.Async {
		panic("blockdevtest: Hold needs an Async device")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held, f.permits = true, 0
}

// Release lets n held requests complete.
func (f *Fault) Release(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.permits += n
	f.wakeLocked()
}

// Resume ends Hold.
func (f *Fault) Resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = false
	f.wakeLocked()
}

// InFlight is the number of requests that have not been handed back.
func (f *Fault) InFlight() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inflight
}

// Submitted is the number of requests so far.
func (f *Fault) Submitted() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.submitted
}

func (f *Fault) wakeLocked() {
	for q := range f.queues {
		q.wake()
	}
}

// Info is that of the device below.
func (f *Fault) Info() blockdev.Info { return f.lower.Info() }

// OpenQueue opens a queue over one of the device below.
func (f *Fault) OpenQueue(cfg blockdev.QueueConfig) (blockdev.Queue, error) {
	lower, err := f.lower.OpenQueue(cfg)
	if err != nil {
		return nil, err
	}
	q, err := newFaultQueue(f, lower, cfg.Depth)
	if err != nil {
		return nil, errors.Join(err, lower.Close())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queues[q] = true
	return q, nil
}

// Close closes the device below.
func (f *Fault) Close() error { return f.lower.Close() }

// admit counts a request and tells what is to become of it.
func (f *Fault) admit(r *blockdev.Request) (p plan, hook func(*blockdev.Request) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inflight++
	f.submitted++
	keep := f.plans[:0]
	for _, next := range f.plans {
		if next.wait--; next.wait == 0 {
			p = next
		} else {
			keep = append(keep, next)
		}
	}
	f.plans = keep
	return p, f.onSubmit
}

// grant tells how many of n requests may complete now.
func (f *Fault) grant(n int) (granted int, held bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held {
		n = min(n, f.permits)
		f.permits -= n
	}
	f.inflight -= n
	return n, f.held
}

func (f *Fault) doneHook() func(*blockdev.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.onDone
}
