package blockdevtest

import (
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

// testAllocations: requests of every kind run without allocating once the queue is
// warm.
func testAllocations(s *suite) {
	if s.opts.Allocates || raceEnabled {
		return
	}
	q, done := s.queue(s.dev, s.opts.Depth)
	defer done()
	large := min(s.opts.Largest, 1<<20)
	batches := map[string][]*blockdev.Request{
		"read":            {transfer(blockdev.Read, 0, make([]byte, 4096))},
		"write":           {transfer(blockdev.Write, 0, make([]byte, 4096))},
		"flush":           {{Op: blockdev.Flush}},
		"refused":         {{Offset: -1}},
		"pieces read":     {NewScatter(1, 1, 8000, 190, 1).Request(blockdev.Read, 0)},
		"pieces written":  {NewScatter(1, 1, 8000, 190, 1).Request(blockdev.Write, 0)},
		"large read":      {transfer(blockdev.Read, 0, make([]byte, large))},
		"large write":     {transfer(blockdev.Write, 0, make([]byte, large))},
		"full queue read": nil,
	}
	for range s.opts.Depth {
		batches["full queue read"] = append(batches["full queue read"], transfer(blockdev.Read, 8192, make([]byte, 16384)))
	}
	if s.info.Features.Discard {
		batches["discard"] = []*blockdev.Request{{Op: blockdev.Discard, Length: 65536}}
	}
	if s.info.Features.WriteZeroes {
		batches["write zeroes"] = []*blockdev.Request{{Op: blockdev.WriteZeroes, Length: 65536}}
	}
	for name, batch := range batches {
		run := s.bare(q, batch)
		run()
		n := 1.0
		for try := 0; try < 5 && n != 0; try++ { // the runtime may have made a thread
			n = testing.AllocsPerRun(5, run)
		}
		if n != 0 {
			s.Errorf("%s: %v allocations per run", name, n)
		}
	}
}

// bare runs a batch with nothing around the queue's own methods.
func (s *suite) bare(q blockdev.Queue, batch []*blockdev.Request) func() {
	done := make([]*blockdev.Request, len(batch))
	fds := []unix.PollFd{{Fd: int32(q.WaitFD()), Events: unix.POLLIN}}
	timeout := int(patience.Milliseconds())
	if q.WaitFD() < 0 {
		timeout = 0
	}
	return func() {
		q.Submit(batch...)
		q.Push()
		for left := len(batch); left > 0; {
			n := q.Poll(done)
			if left -= n; n > 0 || left == 0 {
				continue
			}
			if ready, err := unix.Poll(fds, timeout); ready == 0 && err != unix.EINTR {
				s.Fatalf("%d requests are lost", left)
			}
		}
	}
}
