package simulated

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Time is what passes while a call is on its way.
type Time interface {
	// Now is the time since the beginning.
	Now() time.Duration
	// Sleep waits, or returns the context's error.
	Sleep(ctx context.Context, d time.Duration) error
}

// Real is the time of the world, from now on.
func Real() Time { return realTime{time.Now()} }

type realTime struct{ start time.Time }

func (r realTime) Now() time.Duration { return time.Since(r.start) }

func (r realTime) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// Clock is virtual time. It stands still while anybody works and jumps to the next
// wake-up when all sleep. One sleeper is woken at a time, in the order of their times,
// so that a run repeats.
//
//	clock.Go(f)   f holds a slot
//	clock.Run()   until the last f has returned
//
// A slot is given up while its holder is in Sleep. Sleep may also be called by a
// goroutine without a slot for which a holder waits: it then gives up that one's. Each
// sleeper must have one slot holder of its own that works or waits for it, and nothing
// but Sleep may make a holder wait for virtual time.
//
// A context that ends does not wake a sleeper: Sleep looks at it before and after.
type Clock struct {
	mu       sync.Mutex
	now      time.Duration
	sequence int
	sleepers sleepers
	working  int
	idle     sync.Cond // working is 0
}

// NewClock is a clock at zero.
func NewClock() *Clock {
	c := &Clock{}
	c.idle.L = &c.mu
	return c
}

// Now is the time since zero.
func (c *Clock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Go starts a goroutine that holds a slot until it returns. It begins when Run gets to
// it.
func (c *Clock) Go(f func()) { c.GoAt(0, f) }

// GoAt is Go for one that begins when so much time has passed. It is no goroutine before.
func (c *Clock) GoAt(d time.Duration, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pushLocked(d, func() {
		go func() {
			defer c.leave()
			f()
		}()
	})
}

// Sleep lets virtual time pass.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	woken := make(chan struct{})
	c.mu.Lock()
	c.pushLocked(max(d, 0), func() { close(woken) })
	c.leaveLocked()
	c.mu.Unlock()
	<-woken
	return ctx.Err()
}

// Run lets time pass until nobody is left.
func (c *Clock) Run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for c.working > 0 {
			c.idle.Wait()
		}
		if len(c.sleepers) == 0 {
			return
		}
		next := heap.Pop(&c.sleepers).(sleeper)
		c.now = next.at
		c.working++
		next.wake()
	}
}

func (c *Clock) pushLocked(d time.Duration, wake func()) {
	c.sequence++
	heap.Push(&c.sleepers, sleeper{at: c.now + d, sequence: c.sequence, wake: wake})
}

func (c *Clock) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaveLocked()
}

func (c *Clock) leaveLocked() {
	if c.working--; c.working == 0 {
		c.idle.Signal()
	}
}

type sleeper struct {
	at       time.Duration
	sequence int // of those with the same time
	wake     func()
}

// sleepers is a heap, the next to wake first.
type sleepers []sleeper

func (s sleepers) Len() int { return len(s) }

func (s sleepers) Less(i, j int) bool {
	if s[i].at != s[j].at {
		return s[i].at < s[j].at
	}
	return s[i].sequence < s[j].sequence
}

func (s sleepers) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *sleepers) Push(x any)   { *s = append(*s, x.(sleeper)) }

func (s *sleepers) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	(*s)[last].wake = nil
	*s = (*s)[:last]
	return x
}
