package file

import (
	"fmt"
	"time"

	"sealblk/blockdev"
)

// Engine is how system calls are made.
type Engine int

const (
	// EngineAuto makes calls inline for a file that is in memory, takes io_uring for
	// others if the host offers it, else threads.
	EngineAuto Engine = iota
	// EngineUring is io_uring.
	EngineUring
	// EngineThreads is a pool of threads.
	EngineThreads
	// EngineInline makes the calls on the queue's own thread. For files that are in
	// memory, where a call is done sooner than another thread or the kernel could be
	// told of it.
	EngineInline
)

// String is the engine's name.
func (e Engine) String() string {
	switch e {
	case EngineAuto:
		return "auto"
	case EngineUring:
		return "io_uring"
	case EngineThreads:
		return "threads"
	case EngineInline:
		return "inline"
	}
	return fmt.Sprintf("Engine(%d)", int(e))
}

// Direct is whether the page cache is bypassed.
type Direct int

const (
	// DirectAuto bypasses the page cache where alignment and file system allow it.
	DirectAuto Direct = iota
	// DirectOn makes Open fail where they do not.
	DirectOn
	// DirectOff uses the page cache.
	DirectOff
)

// AfterKill is the Options.LockWait of who takes over from a process that was killed.
const AfterKill = 3 * time.Second

// Options describe the device to open.
type Options struct {
	// ReadOnly opens the file for reading only.
	ReadOnly bool
	// Offset is the number of bytes in front of the data, a multiple of 512.
	Offset int64
	// Size of the device in bytes, a multiple of LogicalBlockSize; 0 means all whole
	// blocks to the end.
	Size int64
	// LogicalBlockSize is 512 (the default), 1024, 2048 or 4096.
	LogicalBlockSize int
	Engine           Engine
	Direct           Direct
	// Lock holds a lock while the device is open: exclusive, or shared if ReadOnly.
	Lock bool
	// LockWait is how long Open may wait for the lock. A process that was killed holds
	// its own until the last request that it had started has ended, which may be a
	// moment after its own end: see the package's comment.
	LockWait time.Duration
	// Standby, with Lock, opens a file that another may be using: the device may not
	// be read or written before Take.
	Standby bool
	// AlignedMemory promises that all buffers start at a multiple of, and are as
	// long as a number of, logical blocks. Requests that break it may fail with
	// EINVAL under direct I/O.
	AlignedMemory bool
}

func (o Options) complete() (Options, error) {
	if o.LogicalBlockSize == 0 {
		o.LogicalBlockSize = 512
	}
	block := int64(o.LogicalBlockSize)
	switch {
	case block < 512 || block > 4096 || block&(block-1) != 0:
		return o, fmt.Errorf("logical block size %d is not 512, 1024, 2048 or 4096: %w", block, blockdev.ErrNotSupported)
	case o.Offset < 0 || o.Offset%512 != 0:
		return o, fmt.Errorf("offset %d is not a multiple of 512: %w", o.Offset, blockdev.ErrMisaligned)
	case o.Size < 0 || o.Size%block != 0:
		return o, fmt.Errorf("size %d is not whole blocks of %d: %w", o.Size, block, blockdev.ErrMisaligned)
	}
	return o, nil
}
