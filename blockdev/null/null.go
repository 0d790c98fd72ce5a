// Package null is a block device without storage: reads give zeros, writes are
// accepted and forgotten. It is the far end for measurements of everything above
// it.
//
// Requests are complete when Submit returns (WaitFD is -1); a write's buffers are
// not looked at. The only errors are those of [blockdev.Request.Check]. The
// device may be used from any number of queues.
package null

import (
	"errors"
	"fmt"

	"sealblk/blockdev"
	"sealblk/blockdev/internal/ready"
)

// ErrGeometry: the capacity or the block size is not one a device can have.
var ErrGeometry = errors.New("invalid geometry")

// Options say how a device presents itself.
type Options struct {
	// LogicalBlockSize in bytes, 512 (the default) to 4096.
	LogicalBlockSize int
	ReadOnly         bool
}

// Device is a block device without storage.
type Device struct{ info blockdev.Info }

// New makes a device of capacity bytes.
func New(capacity int64, opts Options) (*Device, error) {
	size := opts.LogicalBlockSize
	if size == 0 {
		size = 512
	}
	if size < 512 || size > 4096 || size&(size-1) != 0 || capacity <= 0 || capacity%int64(size) != 0 {
		return nil, fmt.Errorf("make null device of %d bytes: %w", capacity, ErrGeometry)
	}
	return &Device{info: blockdev.Info{
		Capacity:          capacity,
		LogicalBlockSize:  size,
		PhysicalBlockSize: size,
		ReadOnly:          opts.ReadOnly,
		Features:          blockdev.Features{Discard: true, WriteZeroes: true, ZeroesUnmap: true},
	}}, nil
}

// Info describes the device.
func (d *Device) Info() blockdev.Info { return d.info }

// OpenQueue makes a queue.
func (d *Device) OpenQueue(cfg blockdev.QueueConfig) (blockdev.Queue, error) {
	return &queue{info: d.info, done: ready.New(cfg.Depth)}, nil
}

// Close does nothing.
func (d *Device) Close() error { return nil }

type queue struct {
	info blockdev.Info
	done ready.List
}

func (q *queue) Submit(reqs ...*blockdev.Request) {
	for _, r := range reqs {
		err := r.Check(&q.info)
		if err == nil && r.Op == blockdev.Read {
			for _, b := range r.Buffers {
				clear(b)
			}
		}
		q.done.Push(r, err)
	}
}

func (q *queue) Push() {}

func (q *queue) Poll(done []*blockdev.Request) int { return q.done.Pop(done) }

func (q *queue) WaitFD() int { return -1 }

func (q *queue) Close() error { return nil }
