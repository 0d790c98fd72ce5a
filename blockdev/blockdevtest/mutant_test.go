package blockdevtest_test

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/memory"
)

// mutant is a memory device with one defect.
type mutant struct {
	*memory.Device
	submit func(q *mutantQueue, reqs []*blockdev.Request)
	push   func(q *mutantQueue)
	poll   func(q *mutantQueue, done []*blockdev.Request, n int) int
	close  func()
	waitFD int
}

type mutantQueue struct {
	blockdev.Queue
	dev   *mutant
	kept  []*blockdev.Request
	count int
}

func (m *mutant) OpenQueue(cfg blockdev.QueueConfig) (blockdev.Queue, error) {
	q, err := m.Device.OpenQueue(cfg)
	return &mutantQueue{Queue: q, dev: m}, err
}

func (q *mutantQueue) Submit(reqs ...*blockdev.Request) {
	q.count += len(reqs)
	if q.dev.submit != nil {
		q.dev.submit(q, reqs)
		return
	}
	q.Queue.Submit(reqs...)
}

func (q *mutantQueue) Push() {
	if q.dev.push != nil {
		q.dev.push(q)
	}
}

func (q *mutantQueue) Poll(done []*blockdev.Request) int {
	n := q.Queue.Poll(done)
	if q.dev.poll != nil {
		n = q.dev.poll(q, done, n)
	}
	return n
}

func (q *mutantQueue) WaitFD() int {
	if q.dev.waitFD > 0 {
		return q.dev.waitFD
	}
	return -1
}

func (q *mutantQueue) Close() error {
	if q.dev.close != nil {
		q.dev.close()
	}
	return q.Queue.Close()
}

// each runs the requests one by one after change has had its way with them.
func each(change func(*blockdev.Request)) func(*mutantQueue, []*blockdev.Request) {
	return func(q *mutantQueue, reqs []*blockdev.Request) {
		for _, r := range reqs {
			change(r)
			q.Queue.Submit(r)
		}
	}
}

// onDone changes requests that are complete.
func onDone(change func(q *mutantQueue, r *blockdev.Request)) func(*mutantQueue, []*blockdev.Request, int) int {
	return func(q *mutantQueue, done []*blockdev.Request, n int) int {
		for _, r := range done[:n] {
			change(q, r)
		}
		return n
	}
}

var sink []byte

var mutants = map[string]mutant{
	"loses a request": {submit: func(q *mutantQueue, reqs []*blockdev.Request) {
		if q.count > 20 {
			reqs = reqs[1:]
		}
		q.Queue.Submit(reqs...)
	}},
	"completes a request twice": {poll: func(q *mutantQueue, done []*blockdev.Request, n int) int {
		if n > 0 && n < len(done) {
			done[n] = done[0]
			n++
		}
		return n
	}},
	"keeps the slice": {
		submit: func(q *mutantQueue, reqs []*blockdev.Request) { q.kept = reqs },
		push: func(q *mutantQueue) {
			for _, r := range q.kept {
				if r != nil {
					q.Queue.Submit(r)
				}
			}
		},
	},
	"uses the tag": {submit: each(func(r *blockdev.Request) { r.Tag++ })},
	"writes short": {submit: each(func(r *blockdev.Request) {
		if n := len(r.Buffers); r.Op == blockdev.Write && n > 1 && r.Length > 4096 {
			r.Buffers = append([][]byte{}, r.Buffers...)
			r.Buffers[n-1] = make([]byte, len(r.Buffers[n-1]))
		}
	})},
	"reads beyond its buffers": {poll: onDone(func(q *mutantQueue, r *blockdev.Request) {
		if r.Op == blockdev.Read && r.Err == nil && len(r.Buffers) > 1 {
			if b := r.Buffers[0]; cap(b) > len(b) {
				b[:len(b)+1][len(b)] = 0
			}
		}
	})},
	"has no bounds": {poll: onDone(func(q *mutantQueue, r *blockdev.Request) {
		if errors.Is(r.Err, blockdev.ErrOutOfRange) {
			r.Err = nil
		}
	})},
	"has no alignment": {poll: onDone(func(q *mutantQueue, r *blockdev.Request) {
		if errors.Is(r.Err, blockdev.ErrMisaligned) {
			r.Err = nil
		}
	})},
	"fails empty requests": {poll: onDone(func(q *mutantQueue, r *blockdev.Request) {
		if r.Op == blockdev.Write && r.Length == 0 {
			r.Err = unix.EINVAL
		}
	})},
	"fails the batch with the bad one": {submit: func(q *mutantQueue, reqs []*blockdev.Request) {
		info := q.dev.Info()
		for _, r := range reqs {
			if r.Check(&info) != nil && len(reqs) > 1 {
				reqs[0].Op = 99
			}
		}
		q.Queue.Submit(reqs...)
	}},
	"zeroes nothing": {submit: each(func(r *blockdev.Request) {
		if r.Op == blockdev.WriteZeroes {
			r.Op = blockdev.Flush
		}
	})},
	"discards a block too many": {submit: each(func(r *blockdev.Request) {
		if r.Op == blockdev.Discard && r.Offset > 0 {
			r.Offset -= 512
			r.Length += 512
		}
	})},
	"allocates": {submit: each(func(r *blockdev.Request) { sink = make([]byte, 64) })},
	"leaks a descriptor": {close: func() {
		if _, err := unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
			panic(err)
		}
	}},
	"leaks a goroutine": {close: func() { go func() { select {} }() }},
	"is always readable": {waitFD: func() int {
		fd, err := unix.Eventfd(1, unix.EFD_CLOEXEC)
		if err != nil {
			panic(err)
		}
		return fd
	}()},
}

const mutantVar = "BLOCKDEVTEST_MUTANT"

// TestMutants: the suite notices each defect. A failing suite needs a process of
// its own.
func TestMutants(t *testing.T) {
	for name := range mutants {
		if name == "allocates" && blockdevtest.RaceEnabled {
			continue // the race detector allocates too, so nothing is counted under it
		}
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestMutantChild$", "-test.failfast", "-rapid.nofailfile")
			cmd.Env = append(os.Environ(), mutantVar+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("the suite did not notice: %s", out)
			}
			if cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("the suite did not end in order: %v\n%s", err, out)
			}
		})
	}
}

func TestMutantChild(t *testing.T) {
	name := os.Getenv(mutantVar)
	if name == "" {
		t.Skip("runs in a child of TestMutants only")
	}
	blockdevtest.Run(t, func(t *testing.T) blockdev.Device {
		m := mutants[name]
		m.Device = open(t, 2<<20, memory.Options{})
		return &m
	}, blockdevtest.Options{DiscardZeroes: true})
}

// TestNoMutant: the child passes when nothing is wrong.
func TestNoMutant(t *testing.T) {
	blockdevtest.Run(t, func(t *testing.T) blockdev.Device {
		return &mutant{Device: open(t, 2<<20, memory.Options{})}
	}, blockdevtest.Options{DiscardZeroes: true})
}
