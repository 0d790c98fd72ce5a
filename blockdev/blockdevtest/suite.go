package blockdevtest

import (
	"bytes"
	"testing"

	"sealblk/blockdev"
)

// Options say what Run may expect of a device beyond the contract.
type Options struct {
	// Depth is the depth of the queues that are opened; the default is 16.
	Depth int
	// Largest is the length in bytes of the largest requests; the default is the
	// capacity, at most 16 MiB.
	Largest int64
	// Null: the device forgets what is written and reads as zeros.
	Null bool
	// DiscardZeroes: a discarded range reads as zeros.
	DiscardZeroes bool
	// ReadOnly opens a device of the kind under test that is read-only.
	ReadOnly func(t *testing.T) blockdev.Device
	// Allocates exempts the device from the rule that requests do not allocate.
	Allocates bool
}

// suite is one case on one freshly opened device.
type suite struct {
	*testing.T
	dev  blockdev.Device
	info blockdev.Info
	opts Options
}

var cases = []struct {
	name string
	run  func(*suite)
}{
	{"info", testInfo},
	{"round trip", testRoundTrip},
	{"fragments", testFragments},
	{"empty requests", testEmpty},
	{"refused requests", testRefused},
	{"refused in a batch", testRefusedInBatch},
	{"missing features", testMissingFeatures},
	{"read-only", testReadOnly},
	{"flush and fua", testFlush},
	{"write zeroes", testWriteZeroes},
	{"discard", testDiscard},
	{"depth", testDepth},
	{"poll into little", testPollIntoLittle},
	{"large requests", testLarge},
	{"large batch", testLargeBatch},
	{"wait descriptor", testWaitFD},
	{"queues see each other", testQueuesInTurn},
	{"queues at the same time", testQueuesAtOnce},
	{"model", testModel},
	{"allocations", testAllocations},
	{"reopen queue", testReopenQueue},
}

// Run checks the devices that open makes against the contract. Each case opens a
// device of its own, whose capacity is at least 1 MiB, and closes it.
func Run(t *testing.T, open func(t *testing.T) blockdev.Device, opts Options) {
	if opts.Depth == 0 {
		opts.Depth = 16
	}
	for _, c := range cases {
		leaks := watchLeaks()
		ok := t.Run(c.name, func(t *testing.T) { runCase(t, open, opts, c.run) })
		if err := leaks.check(); ok && err != nil {
			t.Fatalf("%s: after Close: %v", c.name, err)
		}
	}
}

func runCase(t *testing.T, open func(t *testing.T) blockdev.Device, opts Options, run func(*suite)) {
	dev := open(t)
	s := &suite{T: t, dev: dev, info: dev.Info(), opts: opts}
	if s.opts.Largest == 0 {
		s.opts.Largest = min(s.info.Capacity, 16<<20)
	}
	run(s)
	if err := dev.Close(); err != nil {
		t.Errorf("close device: %v", err)
	}
}

// queue opens a queue of a depth; the function closes it.
func (s *suite) queue(dev blockdev.Device, depth int) (blockdev.Queue, func()) {
	s.Helper()
	q, err := dev.OpenQueue(blockdev.QueueConfig{Depth: depth})
	if err != nil {
		s.Fatalf("open queue: %v", err)
	}
	return q, func() {
		if err := q.Close(); err != nil {
			s.Errorf("close queue: %v", err)
		}
	}
}

// driver opens a queue and drives it; the function closes the queue.
func (s *suite) driver() (*Driver, func()) {
	s.Helper()
	q, closeQueue := s.queue(s.dev, s.opts.Depth)
	return NewDriver(s, q, s.opts.Depth), closeQueue
}

func (s *suite) block() int64 { return int64(s.info.LogicalBlockSize) }

// expect is what a read gives after data was written.
func (s *suite) expect(data []byte) []byte {
	if s.opts.Null {
		return make([]byte, len(data))
	}
	return data
}

// same fails the test when the bytes at offset differ from what a write of want
// leaves there.
func (s *suite) same(what string, offset int64, got, want []byte) {
	s.Helper()
	want = s.expect(want)
	if i := differ(got, want); i >= 0 {
		s.Fatalf("%s: byte %d (device offset %d) is %#02x, want %#02x", what, i, offset+int64(i), got[i], want[i])
	}
}

// differ is the index of the first byte that is not as wanted, or -1. Both have
// the same length.
func differ(got, want []byte) int {
	if bytes.Equal(got, want) {
		return -1
	}
	for i := range want {
		if got[i] != want[i] {
			return i
		}
	}
	return -1
}
