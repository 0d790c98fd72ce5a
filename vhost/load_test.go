package vhost_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"sealblk/vhost/frontend"
)

const (
	loadBlock   = 4096
	loadBlocks  = 256
	loadDepth   = 24 // of each queue
	loadLargest = 8  // blocks in a request
)

// load drives a disk with random requests and knows what each read must return: a block
// is written by one request at a time, and not read meanwhile, as a page cache does it.
type load struct {
	t         *testing.T
	d         *frontend.Disk
	rng       *rand.Rand
	free      []*job
	done      []*frontend.Request
	stamp     uint64
	blocks    [loadBlocks]struct{ stamp, readers, writers uint64 }
	completed int
}

// job is a request and what it is about. The request's tag is its index in jobs.
type job struct {
	*frontend.Request
	queue        *frontend.Queue
	first, count int
	stamp        uint64
	busy         bool
}

func newLoad(t *testing.T, d *frontend.Disk, rng *rand.Rand) *load {
	t.Helper()
	l := &load{t: t, d: d, rng: rng, done: make([]*frontend.Request, 16)}
	for _, q := range d.Queues() {
		for range loadDepth {
			r := request(t, q, frontend.TypeIn, 0, loadLargest*loadBlock)
			j := &job{Request: r, queue: q}
			r.Tag = uint64(len(l.free))
			l.free = append(l.free, j)
		}
	}
	return l
}

func (l *load) inFlight() (n int) {
	for _, q := range l.d.Queues() {
		n += q.InFlight()
	}
	return n
}

// step submits something and takes what is there; false if the back-end is gone.
func (l *load) step() bool {
	l.t.Helper()
	err := l.tryStep()
	if err != nil && !errors.Is(err, frontend.ErrDisconnected) {
		l.t.Fatal(err)
	}
	return err == nil
}

func (l *load) tryStep() error {
	for _, j := range l.free {
		if !j.busy && l.rng.IntN(3) != 0 {
			if err := l.submit(j); err != nil {
				return err
			}
			break
		}
	}
	for _, q := range l.d.Queues() {
		n, err := q.Poll(l.done)
		if n == 0 && err == nil && q.InFlight() == loadDepth {
			if err := q.Notify(); err != nil {
				return err
			}
			n, err = q.Wait(l.done)
		}
		if err := errors.Join(err, l.finish(l.done[:n])); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) submit(j *job) error {
	j.first = l.rng.IntN(loadBlocks - loadLargest)
	j.count = 1 + l.rng.IntN(loadLargest)
	j.Type, j.Length, j.Sector = frontend.TypeIn, j.count*loadBlock, uint64(j.first*loadBlock/frontend.SectorSize)
	switch kind := l.rng.IntN(20); {
	case kind == 0:
		j.Type, j.Length, j.Sector, j.count = frontend.TypeFlush, 0, 0, 0
	case kind < 12:
		j.Type = frontend.TypeOut
	}
	if !l.claim(j) {
		return nil
	}
	if j.Type == frontend.TypeOut {
		l.stamp++
		j.stamp = l.stamp
		fill(j.Data[:j.Length], j.stamp, j.first)
	} else {
		clear(j.Data)
	}
	j.busy = true
	if err := j.queue.Submit(j.Request); err != nil {
		return err
	}
	if l.rng.IntN(3) == 0 {
		return nil // in a batch with the next
	}
	return j.queue.Notify()
}

// claim takes the blocks of a job, if nobody is in the way.
func (l *load) claim(j *job) bool {
	blocks := l.blocks[j.first : j.first+j.count]
	for i := range blocks {
		if blocks[i].writers > 0 || j.Type == frontend.TypeOut && blocks[i].readers > 0 {
			return false
		}
	}
	for i := range blocks {
		if j.Type == frontend.TypeOut {
			blocks[i].writers++
		} else {
			blocks[i].readers++
		}
	}
	return true
}

func (l *load) finish(done []*frontend.Request) error {
	for _, r := range done {
		j := l.free[r.Tag]
		if err := l.verify(j); err != nil {
			return fmt.Errorf("request of type %d for blocks %d to %d after %d others: %w", j.Type, j.first, j.first+j.count-1, l.completed, err)
		}
		j.busy = false
		l.completed++
	}
	return nil
}

func (l *load) verify(j *job) error {
	if !j.busy {
		return errors.New("completed twice")
	}
	if err := j.Err(); err != nil {
		return err
	}
	for i := range j.count {
		b := &l.blocks[j.first+i]
		if j.Type == frontend.TypeOut {
			b.stamp, b.writers = j.stamp, b.writers-1
			continue
		}
		b.readers--
		if err := check(j.Data[i*loadBlock:(i+1)*loadBlock], b.stamp, j.first+i); err != nil {
			return err
		}
	}
	return nil
}

// fill makes each word of each block tell its write and its place.
func fill(b []byte, stamp uint64, first int) {
	for off := 0; off < len(b); off += 8 {
		binary.LittleEndian.PutUint64(b[off:], word(stamp, first*loadBlock+off))
	}
}

// word is zero where nothing was written.
func word(stamp uint64, at int) uint64 {
	if stamp == 0 {
		return 0
	}
	return stamp<<32 | uint64(at)
}

func check(b []byte, stamp uint64, block int) error {
	for off := 0; off < len(b); off += 8 {
		if got, want := binary.LittleEndian.Uint64(b[off:]), word(stamp, block*loadBlock+off); got != want {
			return fmt.Errorf("block %d, byte %d: read %#x (write %d), want %#x (write %d)", block, off, got, got>>32, want, stamp)
		}
	}
	return nil
}

// untilGone goes on until the back-end's end is noticed.
func (l *load) untilGone() error {
	for {
		for _, q := range l.d.Queues() {
			n, err := q.Wait(l.done)
			if err := l.finish(l.done[:n]); err != nil {
				return err
			}
			if errors.Is(err, frontend.ErrDisconnected) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
}

func (l *load) drain() error {
	for _, q := range l.d.Queues() {
		if err := q.Kick.Signal(); err != nil {
			return err
		}
		for q.InFlight() > 0 {
			n, err := q.Wait(l.done)
			if err := errors.Join(err, l.finish(l.done[:n])); err != nil {
				return err
			}
		}
	}
	return nil
}

// readAll compares the whole disk.
func (l *load) readAll() error {
	b := make([]byte, loadBlock)
	for i := range loadBlocks {
		if _, err := l.d.Queue(0).ReadAt(b, int64(i*loadBlock)); err != nil {
			return err
		}
		if err := check(b, l.blocks[i].stamp, i); err != nil {
			return err
		}
	}
	return nil
}
