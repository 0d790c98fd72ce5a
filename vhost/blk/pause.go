package blk

import (
	"sync"

	"sealblk/vhost"
)

// gate is what queues of a Device go in and out by.
type gate struct {
	watchers watchers

	mu     sync.Mutex
	paused bool
	open   int       // queues
	left   sync.Cond // a queue was closed
}

var _ vhost.Pausing = (*Device)(nil)

// Pause has the sessions close all queues, and returns when they have: what was taken
// from the rings is answered, and what the driver adds stays there. A Device that is
// paused opens no queue. What a driver asks for is not failed, however long that lasts.
// It takes as long as the block device takes for what is in flight.
func (d *Device) Pause() {
	g := &d.gate
	g.set(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.open > 0 {
		g.left.Wait()
	}
}

// Resume has the sessions open the queues again, which go on where they were.
func (d *Device) Resume() { d.gate.set(false) }

// Paused implements [vhost.Pausing].
func (d *Device) Paused() bool {
	d.gate.mu.Lock()
	defer d.gate.mu.Unlock()
	return d.gate.paused
}

// WatchPause implements [vhost.Pausing].
func (d *Device) WatchPause(changed func()) (stop func()) { return d.gate.watchers.add(changed) }

func (g *gate) set(paused bool) {
	g.mu.Lock()
	g.paused = paused
	g.mu.Unlock()
	g.watchers.tell()
}

func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused {
		return vhost.ErrPaused
	}
	g.open++
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	g.left.Broadcast()
}
