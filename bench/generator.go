package bench

import (
	"fmt"
	"sync/atomic"
	"time"

	"sealblk/vhost/frontend"

	"golang.org/x/sys/unix"
)

// submitBatch is after how many requests the server is shown them, so that it works
// on the first of a large batch while the rest is prepared.
const submitBatch = 8

// workSample: of so many batches, one is timed to tell the front-end's own cost.
const workSample = 64

// generator drives one queue. It belongs to one goroutine, which is locked to its
// thread; others only read completed and set stop.
type generator struct {
	queue   *frontend.Queue
	slots   *frontend.Slots
	stream  stream
	verify  *verifier // nil for none
	clock   time.Time
	sectors uint64 // in a block

	requests []request // of each slot
	done     []frontend.Completion
	tally    tally
	batch    int
	result   tally
	// mark, if any, is called when measuring begins and ends.
	mark       func() mark
	begun, end mark

	_         [64]byte
	completed atomic.Uint64 // since the start
	stop      atomic.Bool
	_         [64]byte
}

// request is what a slot is about: when it was put, on the clock, and its block.
type request struct {
	start int64
	block uint64
}

// tally is what a generator measured.
type tally struct {
	latency Histogram
	// window, cpu and work are in nanoseconds: how long was measured, CPU time of the
	// thread, and what it spent on other things than waiting.
	window, cpu, work int64
	kicks, calls      uint64
}

// phase of a run, in the order in which they come.
type phase int

const (
	ramping phase = iota
	measuring
	draining
)

func newGenerator(q *frontend.Queue, w *Workload, i int, blocks uint64, pollsPerYield int) (*generator, error) {
	slots, err := frontend.NewSlots(q, frontend.SlotsConfig{Count: w.IODepth, Size: w.BlockSize, Indirect: w.Indirect, PollsPerYield: pollsPerYield})
	if err != nil {
		return nil, err
	}
	g := &generator{
		queue: q, slots: slots, stream: newStream(w, i, blocks), sectors: uint64(w.BlockSize / frontend.SectorSize),
		requests: make([]request, w.IODepth), done: make([]frontend.Completion, w.IODepth),
	}
	if w.Verify {
		g.verify = newVerifier(w, g.stream.first, blocks)
	}
	rng := newRandom(w.Seed, 1<<32+uint64(i))
	for slot := range w.IODepth {
		rng.fill(slots.Data(slot))
	}
	return g, nil
}

func (g *generator) now() int64 { return int64(time.Since(g.clock)) }

// run is the measured part: from start on the clock it ramps, measures and drains.
func (g *generator) run(start time.Time, ramp, runtime time.Duration) error {
	g.clock = start
	for slot := range g.requests {
		g.putNext(slot, g.now())
	}
	if err := g.slots.Submit(); err != nil {
		return err
	}
	at, until := ramping, int64(ramp)
	var before tally
	for at != draining || g.slots.InFlight() > 0 {
		now, err := g.step(at != draining)
		if err != nil {
			return err
		}
		if g.stop.Load() {
			at = draining
		}
		if now < until || at == draining {
			continue
		}
		if at++; at == measuring {
			before, until = g.begin(now), now+int64(runtime)
		} else {
			g.finishTally(before, now)
		}
	}
	return nil
}

// step waits for completions and, unless it drains, submits the slots' next requests.
func (g *generator) step(more bool) (now int64, err error) {
	done, now, err := g.wait()
	if err != nil {
		return 0, err
	}
	for k, c := range done {
		g.tally.latency.Record(now - g.requests[c.Slot].start)
		if err := g.finish(c); err != nil {
			return 0, err
		}
		if !more {
			continue
		}
		g.putNext(c.Slot, now)
		if k%submitBatch == submitBatch-1 {
			if err := g.slots.Submit(); err != nil {
				return 0, err
			}
		}
	}
	if err := g.slots.Submit(); err != nil {
		return 0, err
	}
	if g.batch++; g.batch%workSample == 0 {
		g.tally.work += (g.now() - now) * workSample
	}
	return now, nil
}

// wait returns completed requests and when they were seen.
func (g *generator) wait() (done []frontend.Completion, now int64, err error) {
	if err := g.slots.Wait(); err != nil {
		return nil, 0, err
	}
	now = g.now()
	n, err := g.slots.Poll(g.done)
	g.completed.Add(uint64(n))
	return g.done[:n], now, err
}

// putNext makes a slot the stream's next request.
func (g *generator) putNext(slot int, now int64) {
	typ, block := g.stream.next()
	g.put(slot, typ, block, now)
}

func (g *generator) put(slot int, typ uint32, block uint64, now int64) {
	if g.verify != nil {
		block = g.verify.claim(slot, typ, block, g.slots.Data(slot))
	}
	g.requests[slot] = request{now, block}
	g.slots.Put(slot, typ, block*g.sectors)
}

// finish takes a completed request.
func (g *generator) finish(c frontend.Completion) error {
	if err := c.Err(); err != nil {
		off := g.requests[c.Slot].block * g.sectors * frontend.SectorSize
		return fmt.Errorf("request at offset %d (%#x): %w", off, off, err)
	}
	if g.verify == nil {
		return nil
	}
	return g.verify.finish(c.Slot, g.slots.Data(c.Slot))
}

// sweep writes or reads each block of the stream's part once.
func (g *generator) sweep(typ uint32) error {
	next, end := g.stream.first, g.stream.first+g.stream.count
	put := func(slot int) {
		if next < end && !g.stop.Load() {
			g.put(slot, typ, next, 0)
			next++
		}
	}
	for slot := range g.requests {
		put(slot)
	}
	if err := g.slots.Submit(); err != nil {
		return err
	}
	for g.slots.InFlight() > 0 {
		done, _, err := g.wait()
		if err != nil {
			return err
		}
		for _, c := range done {
			if err := g.finish(c); err != nil {
				return err
			}
			put(c.Slot)
		}
		if err := g.slots.Submit(); err != nil {
			return err
		}
	}
	return nil
}

func (g *generator) begin(now int64) tally {
	if g.mark != nil {
		g.begun = g.mark()
	}
	g.tally = tally{}
	return tally{window: now, cpu: threadCPU(), kicks: g.queue.Counters.Kicks, calls: g.queue.Counters.Calls}
}

func (g *generator) finishTally(before tally, now int64) {
	if g.mark != nil {
		g.end = g.mark()
	}
	g.tally.window = now - before.window
	g.tally.cpu = threadCPU() - before.cpu
	g.tally.kicks = g.queue.Counters.Kicks - before.kicks
	g.tally.calls = g.queue.Counters.Calls - before.calls
	g.result = g.tally
}

// threadCPU is the CPU time of the calling thread, in nanoseconds.
func threadCPU() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return t.Nano()
}
