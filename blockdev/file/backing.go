package file

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"sealblk/blockdev"
	"sealblk/internal/uring"
)

// backing is the device itself, whose memory has to be aligned for direct I/O.
type backing struct {
	file   *os.File
	fd     int
	offset int64         // of the data, in the file
	unit   int64         // the logical block size
	block  bool          // a host block device
	info   blockdev.Info // all but the capacity
	// locks: Options.Lock was given. right is the kind of lock to use the file with, and
	// holds tells whether it is held.
	locks bool
	right int16
	holds bool

	capacity atomic.Int64

	align      alignment
	directText string
	engine     Engine
	fallBack   bool // to threads, for a queue that gets no ring
	engineText string
	// inMemory: the file's data is in memory and nowhere else.
	inMemory bool
	// stored is the file as memory, for EngineInline; nil if it could not be mapped.
	stored *mapping
	// ringEntries bounds the size of a ring.
	ringEntries int

	// punches: PUNCH_HOLE works, and leaves zeros.
	punches bool
	// noZeroRange: ZERO_RANGE was refused, so zeros are written.
	noZeroRange atomic.Bool
	// lost: data that was to be durable may be lost.
	lost atomic.Bool
	// cut: the file has become shorter than the device.
	cut    atomic.Bool
	queues atomic.Int32
}

// Info describes the device.
func (b *backing) Info() blockdev.Info {
	info := b.info
	info.Capacity = b.capacity.Load()
	return info
}

// OpenQueue opens a queue with the engine of the device.
func (b *backing) OpenQueue(cfg blockdev.QueueConfig) (blockdev.Queue, error) {
	q, err := newQueue(b, cfg)
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	b.queues.Add(1)
	if b.stored != nil {
		return &mappedQueue{q, b.stored}, nil
	}
	return q, nil
}

// Close frees the device, and its lock.
func (b *backing) Close() error {
	if n := b.queues.Load(); n != 0 {
		return fmt.Errorf("close device: %d queues are open: %w", n, blockdev.ErrBusy)
	}
	// The kernel may hold the file a little longer than we do, for a ring that is
	// being torn down; the lock must not last as long.
	return errors.Join(b.unlock(), b.stored.close(), b.file.Close())
}

func (b *backing) chooseEngine(e Engine) error {
	if e == EngineAuto && b.inMemory {
		e = EngineInline
	}
	b.fallBack = e == EngineAuto
	b.engine = e
	b.engineText = e.String()
	if e == EngineThreads || e == EngineInline {
		return nil
	}
	err := uring.Probe()
	switch {
	case err == nil:
		b.engine = EngineUring
	case e == EngineUring:
		return err
	default:
		b.engine = EngineThreads
	}
	b.engineText = b.engine.String()
	if err != nil {
		b.engineText += " (" + err.Error() + ")"
	}
	return nil
}
