package memory

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

// ErrGeometry: the capacity or a block size is not one a device can have.
var ErrGeometry = errors.New("invalid geometry")

// Options say how a device presents itself. The zero value is a writable device
// with 512-byte blocks.
type Options struct {
	// LogicalBlockSize in bytes, 512 (the default) to 4096.
	LogicalBlockSize int
	// PhysicalBlockSize in bytes; the default is the logical one.
	PhysicalBlockSize int
	// MaxCapacity, in bytes, is how far Grow can go; the default is the capacity.
	MaxCapacity int64
	ReadOnly    bool
	// NoDiscard and NoWriteZeroes leave the operation out.
	NoDiscard     bool
	NoWriteZeroes bool
}

// Device is a block device in RAM.
type Device struct {
	mem      []byte
	capacity atomic.Int64
	info     blockdev.Info // all but the capacity
}

// New makes a device of capacity bytes, all zero.
func New(capacity int64, opts Options) (*Device, error) {
	d := &Device{info: describe(&opts)}
	d.capacity.Store(capacity)
	limit := max(capacity, opts.MaxCapacity)
	if !valid(d.Info()) || limit%int64(d.info.LogicalBlockSize) != 0 {
		return nil, fmt.Errorf("make memory device of %d bytes: %w", capacity, ErrGeometry)
	}
	const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	mem, err := unix.Mmap(-1, 0, int(limit), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, fmt.Errorf("map memory of device: %w", err)
	}
	// Advice: with small pages most of the time of a random access goes into finding
	// the page. A kernel without huge ones serves small ones.
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	d.mem = mem
	return d, nil
}

func describe(opts *Options) blockdev.Info {
	logical := opts.LogicalBlockSize
	if logical == 0 {
		logical = 512
	}
	return blockdev.Info{
		LogicalBlockSize:  logical,
		PhysicalBlockSize: max(logical, opts.PhysicalBlockSize),
		ReadOnly:          opts.ReadOnly,
		Features: blockdev.Features{
			Discard:     !opts.NoDiscard,
			WriteZeroes: !opts.NoWriteZeroes,
			ZeroesUnmap: !opts.NoWriteZeroes,
		},
	}
}

func valid(info blockdev.Info) bool {
	logical, physical := info.LogicalBlockSize, info.PhysicalBlockSize
	return logical >= 512 && logical <= 4096 && logical&(logical-1) == 0 &&
		physical&(physical-1) == 0 &&
		info.Capacity > 0 && info.Capacity%int64(logical) == 0
}

// Info describes the device.
func (d *Device) Info() blockdev.Info {
	info := d.info
	info.Capacity = d.capacity.Load()
	return info
}

// Bytes is the content of the device, up to its capacity. It stays valid until
// Close.
func (d *Device) Bytes() []byte { return d.mem[:d.capacity.Load()] }

// Grow sets a larger capacity, at most Options.MaxCapacity. Requests may be in
// flight.
func (d *Device) Grow(capacity int64) error {
	old := d.capacity.Load()
	if capacity < old || capacity > int64(len(d.mem)) || capacity%int64(d.info.LogicalBlockSize) != 0 {
		return fmt.Errorf("grow memory device to %d bytes: %w", capacity, ErrGeometry)
	}
	if !d.capacity.CompareAndSwap(old, capacity) {
		return d.Grow(capacity)
	}
	return nil
}

// OpenQueue makes a queue.
func (d *Device) OpenQueue(cfg blockdev.QueueConfig) (blockdev.Queue, error) {
	return newQueue(d, cfg.Depth), nil
}

// Close frees the memory.
func (d *Device) Close() error {
	if d.mem == nil {
		return blockdev.ErrClosed
	}
	mem := d.mem
	d.mem = nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap memory of device: %w", err)
	}
	return nil
}
