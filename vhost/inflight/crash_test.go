package inflight

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// life is a back-end that takes and returns chains, a driver's used index, and what is
// true of them. It dies after a given number of stores.
type life struct {
	region *Region
	q      *Queue
	fuse   int // stores to live
	stores int
	then   func() // what the next stores mean

	used     uint16   // in the ring
	inFlight []uint16 // in the order in which they were taken
	done     []uint16 // of these, the batch that is not published
	taken    uint16   // where the avail ring goes on
}

type death struct{}

func (l *life) stored() {
	l.stores++
	if l.then != nil {
		l.then()
	}
	if l.stores == l.fuse {
		panic(death{})
	}
}

// live runs f, and tells whether the back-end died of it.
func (l *life) live(f func()) (died bool) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(death); !ok {
				panic(p)
			}
			died = true
		}
	}()
	f()
	return false
}

func (l *life) attach(t testing.TB, size int) (heads []uint16) {
	t.Helper()
	var err error
	l.q, heads, err = l.region.Recover(0, size, l.used)
	must(t, err)
	return heads
}

// take: a chain is in flight once it is marked, which is the second store.
func (l *life) take(head uint16) {
	n := l.stores
	l.then = func() {
		if l.stores == n+2 {
			l.inFlight = append(l.inFlight, head)
			l.taken++
		}
	}
	l.q.Take(head)
	l.then = nil
}

func (l *life) finish(head uint16) {
	l.done = append(l.done, head)
	l.q.Done(head)
}

// publish: what was done is the driver's from the store of the ring's index on.
func (l *life) publish() {
	l.q.Seal()
	l.used += uint16(len(l.done))
	l.inFlight = slices.DeleteFunc(l.inFlight, func(h uint16) bool { return slices.Contains(l.done, h) })
	l.done = nil
	l.stored()
	l.q.Published(l.used)
}

// step is one of the three, with a number to choose a chain by.
type step struct{ what, which int }

func (l *life) run(s step, size int) {
	busy := func(h uint16) bool { return slices.Contains(l.inFlight, h) }
	open := slices.DeleteFunc(slices.Clone(l.inFlight), func(h uint16) bool { return slices.Contains(l.done, h) })
	switch {
	case s.what == 0 && len(l.inFlight) < size:
		h := uint16(s.which % size)
		for busy(h) {
			h = (h + 1) % uint16(size)
		}
		l.take(h)
	case s.what == 1 && len(open) > 0:
		l.finish(open[s.which%len(open)])
	case s.what == 2 && len(l.done) > 0:
		l.publish()
	}
}

func (l *life) runAll(steps []step, size int) {
	for _, s := range steps {
		l.run(s, size)
	}
}

// TestDeathAfterEveryStore: whichever store is the last one, and however often the next
// back-end dies over the recovery, what is found in flight is exactly what was taken
// and not returned, in order, and the avail ring goes on where it must.
func TestDeathAfterEveryStore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.SampledFrom([]int{1, 2, 4, 8}).Draw(rt, "size")
		start := rapid.SampledFrom([]uint16{0, 77, 65530}).Draw(rt, "start")
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{rapid.IntRange(0, 2).Draw(rt, "what"), rapid.IntRange(0, 7).Draw(rt, "which")}
		}), 1, 30).Draw(rt, "steps")
		for fuse := 1; ; fuse++ {
			if !dieOnce(t, size, start, steps, fuse) {
				return
			}
		}
	})
}

// dieOnce lets a back-end die after a store, and reports whether it did.
func dieOnce(t *testing.T, size int, start uint16, steps []step, fuse int) bool {
	l := &life{region: newRegionOnce(t, size), used: start, taken: start}
	defer l.region.Close()
	l.region.OnStore(l.stored)
	l.fuse = fuse
	if !l.live(func() { l.attach(t, size); l.runAll(steps, size) }) {
		return false
	}
	l.then, l.done = nil, nil
	what := fmt.Sprintf("size %d, start %d, steps %v, death after store %d", size, start, steps, fuse)
	l.recoverAnd(t, size, steps, what)
	return true
}

func newRegionOnce(t testing.TB, size int) *Region {
	t.Helper()
	d, fd, err := Create(1, size, 0)
	must(t, err)
	r, err := Open(d, fd)
	must(t, err)
	return r
}

// recoverAnd lets back-ends die after each store of the recovery, then recovers, goes
// on, recovers again and serves all requests that there are and some more.
func (l *life) recoverAnd(t *testing.T, size int, steps []step, what string) {
	for fuse := 1; ; fuse++ {
		saved := slices.Clone(l.region.words)
		l.stores, l.fuse = 0, fuse
		if !l.live(func() { l.attach(t, size) }) {
			break
		}
		l.fuse = 0
		l.check(t, size, what)
		copy(l.region.words, saved)
	}
	l.fuse = 0
	l.check(t, size, what)
	l.runAll(steps, size)
	l.done = nil // one more back-end that ends without a word
	l.check(t, size, what)
	for range 3 {
		for range size {
			l.run(step{0, 1}, size)
		}
		for range size {
			l.run(step{1, size - 1}, size)
		}
		l.run(step{2, 0}, size)
	}
	if len(l.inFlight) != 0 {
		t.Fatalf("%s: %v stay in flight", what, l.inFlight)
	}
	l.check(t, size, what)
}

func (l *life) check(t *testing.T, size int, what string) {
	t.Helper()
	heads := l.attach(t, size)
	if !slices.Equal(heads, l.inFlight) {
		t.Fatalf("%s: found %v in flight, want %v", what, heads, l.inFlight)
	}
	if next := l.used + uint16(len(heads)); next != l.taken {
		t.Fatalf("%s: the avail ring goes on at %d, want %d", what, next, l.taken)
	}
}
