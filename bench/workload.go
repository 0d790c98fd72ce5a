package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"sealblk/vhost/frontend"
)

// Workloads by name, as fio calls them.
const (
	Read      = "read"
	Write     = "write"
	RandRead  = "randread"
	RandWrite = "randwrite"
	RandRW    = "randrw"
)

// Patterns are all of them.
var Patterns = []string{Read, Write, RandRead, RandWrite, RandRW}

// Workload is what the front-end does to a device.
type Workload struct {
	// RW is one of Patterns.
	RW string
	// BlockSize of each request, in bytes: a multiple of 512.
	BlockSize int
	// IODepth is how many requests each queue keeps in flight.
	IODepth int
	Queues  int
	// Runtime is measured, after Ramp, which is not.
	Runtime, Ramp time.Duration
	// Size is how much of the device is used, from its start, in bytes; 0 is all.
	Size int64
	// ReadMix is the share of reads in RandRW, in percent.
	ReadMix int
	// Seed of the blocks that a random workload chooses.
	Seed uint64
	// Verify stamps and checks all data. The queues then keep to disjoint parts.
	Verify bool
	// Polling spins for completions; without, each wait sleeps until the server
	// notifies.
	Polling bool
	// Indirect puts each chain into a table of its own, as Linux guests do.
	Indirect bool
}

const (
	maxBlockSize = 16 << 20
	maxDepth     = 1024
	maxQueues    = 256
)

// Check finds what no device could do.
func (w *Workload) Check() error {
	switch {
	case !w.known():
		return fmt.Errorf("workload %q: use %s: %w", w.RW, strings.Join(Patterns, ", "), ErrWorkload)
	case w.BlockSize < frontend.SectorSize || w.BlockSize > maxBlockSize || w.BlockSize%frontend.SectorSize != 0:
		return fmt.Errorf("block size %d: use a multiple of 512 up to 16M: %w", w.BlockSize, ErrWorkload)
	case w.IODepth < 1 || w.IODepth > maxDepth:
		return fmt.Errorf("depth %d: use 1 to %d: %w", w.IODepth, maxDepth, ErrWorkload)
	case w.Queues < 1 || w.Queues > maxQueues:
		return fmt.Errorf("%d queues: use 1 to %d: %w", w.Queues, maxQueues, ErrWorkload)
	case w.Runtime <= 0 || w.Ramp < 0 || w.Size < 0:
		return fmt.Errorf("runtime %v, ramp %v, size %d: %w", w.Runtime, w.Ramp, w.Size, ErrWorkload)
	case w.ReadMix < 0 || w.ReadMix > 100:
		return fmt.Errorf("%d percent reads: use 0 to 100: %w", w.ReadMix, ErrWorkload)
	}
	return nil
}

func (w *Workload) known() bool {
	for _, p := range Patterns {
		if w.RW == p {
			return true
		}
	}
	return false
}

// Writes tells whether the workload destroys what is on the device.
func (w *Workload) Writes() bool { return w.Verify || w.RW != Read && w.RW != RandRead }

// Name is the workload in a word, such as randread-4k-qd32.
func (w *Workload) Name() string {
	name := fmt.Sprintf("%s-%s-qd%d", w.RW, FormatSize(int64(w.BlockSize)), w.IODepth)
	if w.Queues > 1 {
		name += fmt.Sprintf("-q%d", w.Queues)
	}
	if w.Verify {
		name += "-verify"
	}
	return name
}

// FormatSize is a size as a command line takes it.
func FormatSize(n int64) string {
	for i, unit := range []string{"t", "g", "m", "k"} {
		if shift := 40 - 10*i; n >= 1<<shift && n%(1<<shift) == 0 {
			return strconv.FormatInt(n>>shift, 10) + unit
		}
	}
	return strconv.FormatInt(n, 10)
}

// blocks is how many blocks each queue has, out of a device of so many bytes.
func (w *Workload) blocks(capacity int64) (uint64, error) {
	size := w.Size
	if size == 0 {
		size = capacity
	}
	if size > capacity {
		return 0, fmt.Errorf("size %s on a device of %s: %w", FormatSize(size), FormatSize(capacity), ErrWorkload)
	}
	n := uint64(size) / uint64(w.BlockSize) / uint64(w.Queues)
	if n == 0 || w.Verify && n <= uint64(w.IODepth) {
		return 0, fmt.Errorf("%d blocks of %s for each queue are too few for depth %d: use a larger size: %w", n, FormatSize(int64(w.BlockSize)), w.IODepth, ErrWorkload)
	}
	if w.Verify && n > maxVerifyBlocks {
		return 0, fmt.Errorf("%d blocks are too many to verify: use a smaller size: %w", n, ErrWorkload)
	}
	return n, nil
}

// stream chooses the blocks of one queue, and what is done to them.
type stream struct {
	rng          random
	first, count uint64 // in blocks
	at           uint64 // the next, of a sequential stream
	random       bool
	reads        uint64 // read if a random number is below it; MaxUint64: always
}

// newStream is for queue i of a workload that has so many blocks for each queue.
func newStream(w *Workload, i int, blocks uint64) stream {
	s := stream{rng: newRandom(w.Seed, uint64(i)), first: uint64(i) * blocks, count: blocks}
	switch w.RW {
	case RandRead, RandWrite, RandRW:
		s.random = true
		if !w.Verify { // all queues go everywhere
			s.first, s.count = 0, blocks*uint64(w.Queues)
		}
	}
	switch w.RW {
	case Read, RandRead:
		s.reads = math.MaxUint64
	case RandRW:
		s.reads = share(w.ReadMix)
	}
	return s
}

// share is a percentage of all numbers of 64 bits.
func share(percent int) uint64 {
	if percent == 100 {
		return math.MaxUint64
	}
	return math.MaxUint64 / 100 * uint64(percent)
}

func (s *stream) next() (typ uint32, block uint64) {
	typ = frontend.TypeOut
	if s.reads == math.MaxUint64 || s.reads > 0 && s.rng.next() < s.reads {
		typ = frontend.TypeIn
	}
	if s.random {
		return typ, s.first + s.rng.below(s.count)
	}
	block = s.first + s.at
	if s.at++; s.at == s.count {
		s.at = 0
	}
	return typ, block
}
