package blockdevtest

import (
	"bytes"
	"runtime"
	"sync"
	"testing"

	"sealblk/blockdev"
)

// testDepth fills queues to their depth, in one batch and one by one, again and
// again.
func testDepth(s *suite) {
	for _, depth := range []int{1, 2, 3, s.opts.Depth, 4 * s.opts.Depth} {
		q, done := s.queue(s.dev, depth)
		d := NewDriver(s, q, depth)
		for round := range 4 {
			want := Noise(uint64(depth+round), int64(depth)*4096)
			s.submitPieces(d, blockdev.Write, want, round%2 == 0)
			got := make([]byte, len(want))
			s.submitPieces(d, blockdev.Read, got, round < 2)
			s.same("pieces of a full queue", 0, got, want)
		}
		done()
	}
}

// submitPieces moves data by one request for each 4 KiB, all in flight together.
func (s *suite) submitPieces(d *Driver, op blockdev.Op, data []byte, together bool) {
	s.Helper()
	var batch []*blockdev.Request
	for at := 0; at < len(data); at += 4096 {
		r := transfer(op, int64(at), data[at:at+4096])
		batch = append(batch, r)
		if !together {
			d.Submit(r)
		}
	}
	if together {
		d.Submit(batch...)
	}
	d.Push()
	d.Finish()
	for _, r := range batch {
		if r.Err != nil {
			s.Fatalf("request at %d: %v", r.Offset, r.Err)
		}
	}
}

// testPollIntoLittle takes completions one by one and with no room at all.
func testPollIntoLittle(s *suite) {
	q, done := s.queue(s.dev, s.opts.Depth)
	defer done()
	d := NewDriver(s, q, 1)
	want := Noise(5, int64(s.opts.Depth)*4096)
	for round := range 3 {
		s.submitPieces(d, blockdev.Write, want, round%2 == 0)
		if n := q.Poll(nil); n != 0 {
			s.Fatalf("Poll with no room returned %d", n)
		}
	}
	var batch []*blockdev.Request
	for range s.opts.Depth {
		batch = append(batch, transfer(blockdev.Read, 0, make([]byte, 4096)))
	}
	d.Submit(batch...)
	d.Push()
	if n := q.Poll(nil); n != 0 {
		s.Fatalf("Poll with no room returned %d", n)
	}
	d.Finish()
	s.same("after small polls", 0, d.Read(0, int64(len(want))), want)
}

func testLarge(s *suite) {
	d, done := s.driver()
	defer done()
	size := s.opts.Largest &^ (s.block() - 1)
	for i, offset := range []int64{0, s.info.Capacity - size} {
		want := Noise(uint64(i), size)
		d.Write(offset, want)
		s.same("large request", offset, d.Read(offset, size), want)
		in := NewScatter(3, 1, int(size/2), 0, int(size/2-2), 1)
		d.Must(in.Request(blockdev.Read, offset))
		s.same("large request in pieces", offset, in.Bytes(), want)
	}
}

// testLargeBatch has many large requests in flight at once, more than any pool of
// buffers holds, with small ones and flushes between them.
func testLargeBatch(s *suite) {
	d, done := s.driver()
	defer done()
	writers := max(1, s.opts.Depth/2)
	part := min(s.opts.Largest, s.info.Capacity) / int64(writers) &^ (s.block() - 1)
	want := Noise(6, part*int64(writers))
	var batch []*blockdev.Request
	for i := range writers {
		at := int64(i) * part
		batch = append(batch, NewScatter(i, int(part/3), int(part-part/3)).Fill(want[at:at+part]).Request(blockdev.Write, at))
	}
	for len(batch) < s.opts.Depth {
		batch = append(batch, &blockdev.Request{Op: blockdev.Flush})
	}
	d.Must(batch...)

	batch = batch[:0]
	for i := range s.opts.Depth {
		offset := int64(i) * part / 2 &^ (s.block() - 1)
		length := part
		if i%2 == 1 {
			length = s.block()
		}
		offset = min(offset, int64(len(want))-length)
		batch = append(batch, transfer(blockdev.Read, offset, make([]byte, length)))
	}
	d.Must(batch...)
	for _, r := range batch {
		s.same("read of a batch", r.Offset, r.Buffers[0], want[r.Offset:r.Offset+r.Length])
	}
}

// testWaitFD: an idle queue is silent.
func testWaitFD(s *suite) {
	q, done := s.queue(s.dev, s.opts.Depth)
	defer done()
	d := NewDriver(s, q, s.opts.Depth)
	fd := q.WaitFD()
	if fd >= 0 && readable(fd, 0) {
		s.Errorf("a new queue says that it has work")
	}
	for range 3 {
		d.Must(transfer(blockdev.Write, 0, Noise(7, 128<<10)), &blockdev.Request{Op: blockdev.Flush})
		if fd >= 0 && readable(fd, 0) {
			s.Errorf("a drained queue says that it has work")
		}
	}
	if q.WaitFD() != fd {
		s.Errorf("the wait descriptor changed from %d to %d", fd, q.WaitFD())
	}
}

// testQueuesInTurn: what completed on one queue is seen by the other.
func testQueuesInTurn(s *suite) {
	a, doneA := s.driver()
	defer doneA()
	b, doneB := s.driver()
	defer doneB()
	for i := range uint64(8) {
		want := Noise(i, 20480)
		a.Write(4096, want)
		s.same("the other queue's write", 4096, b.Read(4096, 20480), want)
		a, b = b, a
	}
}

// inGoroutine makes a suite's failures fit for goroutines other than the test's.
type inGoroutine struct{ testing.TB }

func (t inGoroutine) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

// testQueuesAtOnce: queues of several goroutines write the same bytes to ranges
// that overlap.
func testQueuesAtOnce(s *suite) {
	const area = 512 << 10
	want := Noise(8, area)
	var group sync.WaitGroup
	for worker := range 3 {
		q, done := s.queue(s.dev, s.opts.Depth)
		d := NewDriver(inGoroutine{s}, q, s.opts.Depth)
		group.Go(func() {
			defer done()
			for i := range int64(20) {
				at := i * 12288 % (area - 96<<10)
				d.Must(
					transfer(blockdev.Write, at, bytes.Clone(want[at:at+96<<10])),
					transfer(blockdev.Read, at, make([]byte, 64<<10)))
				if worker == 0 {
					d.Must(&blockdev.Request{Op: blockdev.Flush})
				}
			}
			d.Write(int64(worker)*area/4, want[worker*area/4:(worker+2)*area/4])
		})
	}
	group.Wait()
	d, done := s.driver()
	defer done()
	s.same("after three queues", 0, d.Read(0, area), want)
}

func testReopenQueue(s *suite) {
	want := Noise(9, 40960)
	for range 20 {
		d, done := s.driver()
		d.Write(4096, want)
		done()
		d, done = s.driver()
		s.same("another queue", 4096, d.Read(4096, 40960), want)
		done()
	}
}
