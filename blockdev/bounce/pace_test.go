package bounce

import (
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
)

// counting is a transform that counts what it makes readable.
type counting struct {
	toy
	incoming *int
}

func (x counting) Incoming(dst, src []byte, offset int64, next []byte) {
	*x.incoming++
	x.toy.Incoming(dst, src, offset, next)
}

// TestTransformsNoMoreThanAskedFor: who polls for one request does not wait for the
// transform of others.
func TestTransformsNoMoreThanAskedFor(t *testing.T) {
	var incoming int
	r := newRig(t, with(tiny, func(c *Config) { c.Unit, c.Transform = 512, counting{toy{512}, &incoming} }),
		blockdevtest.FaultOptions{Async: true}, 8)
	var reqs []*blockdev.Request
	for i := range int64(8) {
		reqs = append(reqs, request(blockdev.Read, i*4096, make([]byte, 4096)))
	}
	r.queue.Submit(reqs...)
	r.queue.Push()
	r.fault.Resume() // all of them are complete below
	done := make([]*blockdev.Request, 1)
	for given := 0; given < len(reqs); {
		given += r.queue.Poll(done)
		if incoming != given {
			t.Fatalf("%d requests were transformed for %d that were asked for", incoming, given)
		}
	}
}
