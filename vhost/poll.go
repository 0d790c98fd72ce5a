package vhost

import (
	"time"

	"golang.org/x/sys/unix"

	"sealblk/internal/spin"
)

// DefaultPollMax is the Options.PollMax of the program: QEMU's own value for its
// block devices (poll-max-ns of an I/O thread).
const DefaultPollMax = 32 * time.Microsecond

const (
	// pollFirst is the shortest time worth polling; below it, a worker sleeps at once.
	pollFirst = 4 * time.Microsecond
	// spinsPerLook is how often a poller looks at the ring between two looks at the
	// clock.
	spinsPerLook = 16
	// crowded is how long not to poll when others want the processor: each time that the
	// poller lets them go first they take a slice of milliseconds, while who sleeps is
	// woken ahead of them.
	crowded = 50 * time.Millisecond
	// aSlice is how long a turn of another thread takes at least; a disturbance that the
	// thread would have met in any case is shorter.
	aSlice = 500 * time.Microsecond
)

// poller decides for how long a worker that has nothing to do looks around before it
// sleeps: long enough to catch what usually comes, and not at all where nothing comes
// within the limit, so that a quiet disk and a slow one cost no processor time.
//
//	idle for at most the limit, all in all:  window doubles, up to the limit
//	longer:                                  window halves, down to nothing
type poller struct {
	limit  time.Duration
	window time.Duration
	// resume is when to try again after the processor was found to be crowded.
	resume time.Time
}

// learn takes how long the worker had nothing to do.
func (p *poller) learn(idle time.Duration) {
	if idle <= p.limit {
		p.window = min(max(2*p.window, pollFirst), p.limit)
		return
	}
	if p.window /= 2; p.window < pollFirst {
		p.window = 0
	}
}

// rest waits until there may be something to do: awake at first, then asleep.
func (w *worker) rest() {
	start := time.Now()
	if w.poll(start) {
		return
	}
	w.sleep()
	w.poller.learn(time.Since(start))
}

// poll looks around until there is something to do, which it tells, or the time is up.
// Now and then it lets another thread of the processor go first, which may be the one
// that it waits for.
func (w *worker) poll(start time.Time) bool {
	if w.poller.window == 0 || start.Before(w.poller.resume) {
		return false
	}
	for {
		for range spinsPerLook {
			if w.busy() {
				return true
			}
			spin.Pause(1)
		}
		if time.Since(start) >= w.poller.window {
			return false
		}
		yielded := time.Now()
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		if now := time.Now(); now.Sub(yielded) > aSlice {
			w.poller.resume = now.Add(crowded)
		}
	}
}

// busy tells whether there is something to do. Completions are dealt with on the way.
func (w *worker) busy() bool {
	return len(w.calls) > 0 ||
		w.taking() && len(w.free) > 0 && w.ring.Pending() ||
		w.inFlight > 0 && w.complete() > 0
}
