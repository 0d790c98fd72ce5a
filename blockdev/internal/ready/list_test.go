package ready

import (
	"errors"
	"testing"

	"sealblk/blockdev"
)

func TestListKeepsOrderAndErrors(t *testing.T) {
	const depth = 4
	l := New(depth)
	errs := []error{nil, errors.New("bad")}
	var pushed, popped uint64
	for step := range 100 {
		for l.Len() < depth {
			l.Push(&blockdev.Request{Tag: pushed}, errs[pushed%2])
			pushed++
		}
		done := make([]*blockdev.Request, step%(depth+2))
		n := l.Pop(done)
		if want := min(len(done), depth); n != want {
			t.Fatalf("step %d: popped %d, want %d", step, n, want)
		}
		for _, r := range done[:n] {
			if r.Tag != popped || !errors.Is(r.Err, errs[popped%2]) {
				t.Fatalf("got %d (%v), want %d (%v)", r.Tag, r.Err, popped, errs[popped%2])
			}
			popped++
		}
	}
	if cap(l.reqs) != depth {
		t.Fatalf("the list grew to %d", cap(l.reqs))
	}
}
