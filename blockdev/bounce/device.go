package bounce

import (
	"errors"
	"fmt"

	"sealblk/blockdev"
)

// Device is a layer over a lower device.
type Device struct {
	lower blockdev.Device
	cfg   Config
}

// New makes a layer over lower, which the layer owns from now on: its Close closes
// it. On an error lower stays the caller's.
func New(lower blockdev.Device, cfg Config) (*Device, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if capacity := lower.Info().Capacity; capacity%int64(cfg.Unit) != 0 {
		return nil, fmt.Errorf("check lower device: %d bytes are not whole units of %d: %w", capacity, cfg.Unit, ErrConfig)
	}
	return &Device{lower: lower, cfg: cfg}, nil
}

// Info is that of the lower device, in blocks of at least one unit.
func (d *Device) Info() blockdev.Info {
	info := d.lower.Info()
	info.LogicalBlockSize = max(info.LogicalBlockSize, d.cfg.Unit)
	info.PhysicalBlockSize = max(info.PhysicalBlockSize, info.LogicalBlockSize)
	// A lower device that grew may end within a block of ours.
	info.Capacity &^= int64(info.LogicalBlockSize - 1)
	info.Features = d.cfg.features(info.Features)
	return info
}

// OpenQueue opens a queue of the lower device and the bounce memory over it.
func (d *Device) OpenQueue(cfg blockdev.QueueConfig) (blockdev.Queue, error) {
	depth := max(1, cfg.Depth)
	// Each request has one request of its own below, or one small chunk, besides
	// large ones.
	arena, err := newArena(depth*d.cfg.SmallChunk+d.cfg.LargeChunks*d.cfg.LargeChunk, d.cfg.HugePages)
	if err != nil {
		return nil, err
	}
	// What the lower queue may pin takes memory whether it is used or not: it is what is
	// used first.
	lower, err := d.lower.OpenQueue(blockdev.QueueConfig{Depth: depth + d.cfg.LargeChunks, Memory: [][]byte{arena.mem[:hugePage]}})
	if err != nil {
		return nil, errors.Join(err, arena.free())
	}
	return newQueue(d, lower, arena, depth), nil
}

// Close closes the lower device.
func (d *Device) Close() error { return d.lower.Close() }
