package simulated

import (
	"context"
	"fmt"
	"time"

	"sealblk/keymgr"
)

// Gate is the gate of a host with one KMS, on a Clock. Callers go through in the order
// in which they came.
type Gate struct {
	clock   *Clock
	places  int
	waiting []*caller
	// silent is since when the KMS answers nobody, below 0 while it does; watched is
	// whether somebody looks out for the end of the callers' patience with that.
	silent  time.Duration
	watched bool
}

// caller waits at a gate.
type caller struct {
	came    time.Duration
	silence time.Duration // its limit
	gone    bool          // through it, or away
	late    string        // why it went away
	waited  time.Duration // in silence
	proceed chan struct{}
}

var _ keymgr.Gate = (*Gate)(nil)

// NewGate makes a gate with so many places.
func (c *Clock) NewGate(places int) *Gate { return &Gate{clock: c, places: places, silent: -1} }

// Enter waits for a place.
func (g *Gate) Enter(ctx context.Context, kms string, limits keymgr.Retry) (keymgr.Place, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g.clock.mu.Lock()
	if g.places > 0 {
		g.places--
		g.clock.mu.Unlock()
		return place{g, 0}, nil
	}
	me := &caller{came: g.clock.now, silence: limits.Silence, proceed: make(chan struct{})}
	g.waiting = append(g.waiting, me)
	if limits.Patience > 0 {
		g.clock.pushLocked(limits.Patience, func() {
			g.clock.working--
			g.sendAwayLocked(me, "no turn")
		})
	}
	g.watchLocked()
	g.clock.leaveLocked() // as a sleeper does
	g.clock.mu.Unlock()
	<-me.proceed
	if me.late != "" {
		return nil, unreachable(fmt.Sprintf("wait for other calls to %s: %s", kms, me.late))
	}
	return place{g, me.waited}, nil
}

// sendAwayLocked gives a caller who has waited too long a slot to go with.
func (g *Gate) sendAwayLocked(c *caller, why string) {
	if c.gone {
		return
	}
	c.gone, c.late = true, why
	g.clock.working++
	close(c.proceed)
}

// watchLocked sees to it that the next caller who has heard nothing for too long is
// sent away then.
func (g *Gate) watchLocked() {
	if g.silent < 0 || g.watched {
		return
	}
	for len(g.waiting) > 0 && g.waiting[0].gone {
		g.waiting = g.waiting[1:]
	}
	if len(g.waiting) == 0 || g.waiting[0].silence == 0 {
		return
	}
	g.watched = true
	g.clock.pushLocked(max(g.lateLocked(g.waiting[0])-g.clock.now, 0), func() {
		g.clock.working--
		g.watched = false
		for _, c := range g.waiting {
			if g.silent >= 0 && g.lateLocked(c) <= g.clock.now {
				g.sendAwayLocked(c, "no answer")
			}
		}
		g.watchLocked()
	})
}

// lateLocked is when a caller has heard nothing for too long, if it goes on so.
func (g *Gate) lateLocked(c *caller) time.Duration { return max(g.silent, c.came) + c.silence }

// place is a place beyond a gate.
type place struct {
	*Gate
	waited time.Duration
}

// Silent is for how long nobody was answered while the caller waited.
func (p place) Silent() time.Duration { return p.waited }

// Answered tells those who wait whether the KMS answers.
func (p place) Answered(answered bool) {
	p.clock.mu.Lock()
	defer p.clock.mu.Unlock()
	switch {
	case answered:
		p.silent = -1
	case p.silent < 0:
		p.silent = p.clock.now
		p.watchLocked()
	}
}

// Leave hands the place to the next one, who works from now on.
func (p place) Leave() {
	p.clock.mu.Lock()
	defer p.clock.mu.Unlock()
	for len(p.waiting) > 0 {
		next := p.waiting[0]
		p.waiting = p.waiting[1:]
		if !next.gone {
			next.gone = true
			if p.silent >= 0 {
				next.waited = p.clock.now - max(p.silent, next.came)
			}
			p.clock.working++
			close(next.proceed)
			return
		}
	}
	p.places++
}
