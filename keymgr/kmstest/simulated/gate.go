package simulated

import (
	"context"
	"time"
)

// Gate is a gate on a Clock, through which callers go in the order in which they came.
type Gate struct {
	clock   *Clock
	places  int
	waiting []*caller
}

// caller waits at a gate.
type caller struct {
	gone    bool // through it, or away
	late    bool
	proceed chan struct{}
}

// NewGate makes a gate with so many places.
func (c *Clock) NewGate(places int) *Gate { return &Gate{clock: c, places: places} }

// Enter waits for a place; leave gives it up. A longest of 0 is no bound.
func (g *Gate) Enter(ctx context.Context, longest time.Duration) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g.clock.mu.Lock()
	if g.places > 0 {
		g.places--
		g.clock.mu.Unlock()
		return g.leave, nil
	}
	me := &caller{proceed: make(chan struct{})}
	g.waiting = append(g.waiting, me)
	if longest > 0 {
		g.clock.pushLocked(longest, func() { g.expireLocked(me) })
	}
	g.clock.leaveLocked() // as a sleeper does
	g.clock.mu.Unlock()
	<-me.proceed
	if me.late {
		return nil, unreachable("wait for other calls of this host")
	}
	return g.leave, nil
}

// expireLocked sends a caller away who has waited too long. The clock has given it a
// slot.
func (g *Gate) expireLocked(c *caller) {
	if c.gone {
		g.clock.working--
		return
	}
	c.gone, c.late = true, true
	close(c.proceed)
}

// leave hands the place to the next one, who works from now on.
func (g *Gate) leave() {
	g.clock.mu.Lock()
	defer g.clock.mu.Unlock()
	for len(g.waiting) > 0 {
		next := g.waiting[0]
		g.waiting = g.waiting[1:]
		if !next.gone {
			next.gone = true
			g.clock.working++
			close(next.proceed)
			return
		}
	}
	g.places++
}
