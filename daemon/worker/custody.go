package worker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sealblk/daemon/control"
	"sealblk/disk"
)

// ErrKeyLost: the disk's key was wiped, since its CMK cannot be used any more.
var ErrKeyLost = errors.New("the disk's key was wiped")

const (
	// DefaultLossGrace is time to see that a CMK was disabled by mistake.
	DefaultLossGrace = 10 * time.Second
	// Attempts to get back a key whose CMK is back, while the KMS does not answer.
	unlockPause, unlockPauseMax = time.Second, 30 * time.Second
)

// custody is the worker's part in what becomes of a disk whose CMK is lost, as its policy
// says. A CMK is lost when the broker says so; that the KMS does not answer changes
// nothing.
//
//	                      lost, pause                  ┌────────┐
//	     ┌────────────────────────────────────────────▶│ paused │ no key; requests wait
//	     │                                             └────────┘
//	┌─────────┐◀──── usable: unwrapped and proved ─────────┘  │
//	│ running │                                               │ policy becomes detach
//	└─────────┘◀──── usable, or another policy ──┐            ▼
//	     │ ▲    lost, detach                 ┌───────┐    after the grace ┌────────┐
//	     │ │ └──────────────────────────────▶│ grace │───────────────────▶│ failed │
//	     └─┘ lost, keep                      └───────┘                    └────────┘
//	                                          served                   no key; IOERR;
//	                                                                   ends with its front-end
//
// To leave "running" takes draining all rings, whose workers end; the key is wiped when
// none is left, and not before. The policy counts at the moment at which the CMK is lost,
// and when it is changed: a key that was wiped does not come back by changing the policy.
//
// One goroutine runs it. Everything but the channels and shown belongs to that.
type custody struct {
	export *export
	grace  time.Duration

	reports  chan error
	policies chan disk.KeyLossPolicy
	pokes    chan struct{} // a front-end has gone
	done     chan struct{}

	policy disk.KeyLossPolicy
	key    disk.KeyState
	why    error // the key is lost
	cause  error // the why of the moment at which its I/O failed for good
	io     string
	// deadline is when the grace is over, retry when to try to unlock again; zero for
	// never.
	deadline, retry time.Time
	pause           time.Duration
	ended           bool // the export, by this

	shown atomic.Pointer[shownCustody]
}

// shownCustody is what others may know.
type shownCustody struct {
	policy disk.KeyLossPolicy
	key    disk.KeyState
	io     string
}

// startCustody begins to watch the key of an encrypted disk.
func (e *export) startCustody(ctx context.Context) (stop func(), err error) {
	if e.disk == nil || !e.disk.Record.Encrypted || e.opts.WatchKey == nil {
		return func() {}, nil
	}
	c := &custody{
		export: e, grace: e.opts.LossGrace, policy: e.disk.Record.OnKeyLoss, io: control.IORunning,
		reports: make(chan error), policies: make(chan disk.KeyLossPolicy), pokes: make(chan struct{}, 1), done: make(chan struct{}),
	}
	c.show()
	ctx, cancel := context.WithCancel(ctx)
	// A worker that is to end by now ends as any other: the answer comes at once.
	if err := e.opts.WatchKey(context.WithoutCancel(ctx), c.report); err != nil {
		cancel()
		close(c.done)
		return nil, fmt.Errorf("watch the disk's key: %w", err)
	}
	go c.run(ctx)
	e.custody.Store(c)
	return func() { cancel(); <-c.done }, nil
}

// report takes the state of the key from whoever watches it.
func (c *custody) report(err error) {
	select {
	case c.reports <- err:
	case <-c.done:
	}
}

// change takes another policy.
func (c *custody) change(p disk.KeyLossPolicy) {
	select {
	case c.policies <- p:
	case <-c.done:
	}
}

func (c *custody) run(ctx context.Context) {
	defer close(c.done)
	for {
		c.act(ctx)
		c.show()
		timer := time.NewTimer(c.next())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case err := <-c.reports:
			c.learn(err)
		case c.policy = <-c.policies:
			c.export.opts.Log.Info("what to do when the key is lost was changed", "policy", c.policy)
		case <-c.pokes:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// next is how long there is nothing to do.
func (c *custody) next() time.Duration {
	next := time.Hour
	for _, when := range []time.Time{c.deadline, c.retry} {
		if !when.IsZero() {
			next = min(next, time.Until(when))
		}
	}
	return next
}

// learn takes what is known of the key. What says nothing of it leaves it as it was.
func (c *custody) learn(err error) {
	log, was := c.export.opts.Log, c.key
	c.key = disk.KeyStateOf(err)
	switch {
	case c.key.Lost():
		c.why, c.retry, c.pause = err, time.Time{}, 0
		log.Error("the disk's key is lost: the next export will fail", "key_state", c.key, "policy", c.policy, "err", err)
	case c.key == disk.KeyUnknown:
		log.Warn("the state of the disk's key is not known; it counts as it was", "err", err)
	default:
		if c.why != nil || was == disk.KeyUnknown {
			log.Info("the disk's key can be used")
		}
		c.why, c.retry, c.pause = nil, time.Time{}, 0
	}
}

// act does what state of the key, policy and time ask for.
func (c *custody) act(ctx context.Context) {
	lost := c.why != nil
	switch {
	case c.io == control.IOFailed:
		c.endUnused()
		return
	case c.io == control.IOPaused && !lost:
		c.unlock(ctx)
	case c.io == control.IORunning && lost && c.policy == disk.KeyLossPause:
		c.lock(control.IOPaused)
	}
	if !lost || c.policy != disk.KeyLossDetach {
		c.deadline = time.Time{}
		return
	}
	if c.deadline.IsZero() {
		c.deadline = time.Now().Add(c.grace)
		c.export.opts.Log.Warn("the disk's I/O will fail soon", "in", c.grace)
	}
	if !time.Now().Before(c.deadline) {
		c.fail()
	}
}

// lock drains the rings and wipes the key. It takes as long as the storage takes for what
// is in flight.
func (c *custody) lock(io string) {
	began := time.Now()
	c.export.blk.Pause()
	c.export.disk.Lock()
	c.io = io
	c.export.opts.Log.Warn("the disk's key is wiped", "io_state", io, "drained_in", time.Since(began))
}

// fail is for good: rings run again, on a disk without a key.
func (c *custody) fail() {
	if c.io == control.IORunning {
		c.lock(control.IOFailed)
	}
	c.io, c.cause, c.deadline, c.retry = control.IOFailed, c.why, time.Time{}, time.Time{}
	c.show()
	c.export.blk.Resume()
	c.endUnused()
}

// endUnused ends an export that can do nothing but fail, once no guest waits for that.
func (c *custody) endUnused() {
	if !c.export.active.Load() {
		c.ended = true
		c.export.cancel()
	}
}

// unlock goes on with a disk whose CMK is back. Whatever keeps the key away is tried again,
// less and less often, until there is news of the CMK.
func (c *custody) unlock(ctx context.Context) {
	if time.Now().Before(c.retry) {
		return
	}
	if err := c.export.disk.Unlock(ctx); err != nil {
		c.pause = min(max(2*c.pause, unlockPause), unlockPauseMax)
		c.retry = time.Now().Add(c.pause)
		if ctx.Err() == nil {
			c.export.opts.Log.Warn("the disk stays paused: its key does not come back", "err", err, "again_in", c.pause)
		}
		return
	}
	c.io, c.retry, c.pause = control.IORunning, time.Time{}, 0
	c.show()
	c.export.blk.Resume()
	c.export.opts.Log.Info("the disk's key is back: its I/O goes on")
}

func (c *custody) show() {
	c.shown.Store(&shownCustody{c.policy, c.key, c.io})
}

// verdict is the error of an export that ended by itself.
func (e *export) verdict() error {
	c := e.custody.Load()
	if c == nil || !c.ended {
		return nil
	}
	return fmt.Errorf("disk %s: %w: %w", e.opts.Disk, ErrKeyLost, c.cause)
}

// custodyStatus completes a status.
func (e *export) custodyStatus(s *control.Status) {
	s.IOState = control.IORunning
	c := e.custody.Load()
	if c == nil {
		return
	}
	shown := c.shown.Load()
	s.OnKeyLoss, s.KeyState, s.IOState = string(shown.policy), string(shown.key), shown.io
}

// SetOnKeyLoss implements control.Export.
func (e *export) SetOnKeyLoss(policy string) error {
	p := disk.KeyLossPolicy(policy)
	if err := p.Check(); err != nil {
		return err
	}
	c := e.custody.Load()
	if c == nil {
		return fmt.Errorf("change what becomes of a lost key: %w", errNotWatched)
	}
	c.change(p)
	return nil
}

// errNotWatched: a plain disk, or a worker without anybody who watches its key.
var errNotWatched = errors.New("no key is watched here")

// setActive notes whether a front-end is connected.
func (e *export) setActive(active bool) {
	e.active.Store(active)
	c := e.custody.Load()
	if c == nil || active {
		return
	}
	select {
	case c.pokes <- struct{}{}:
	default:
	}
}
