package crypt

import (
	"fmt"
	"sync/atomic"

	"sealblk/blockdev"
	"sealblk/blockdev/bounce"
	"sealblk/cipher"
)

// Discard says what becomes of a Discard.
type Discard uint8

const (
	// DiscardUnmap passes it on: who sees the lower device sees what is unused.
	DiscardUnmap Discard = iota
	// DiscardIgnore completes it without doing anything.
	DiscardIgnore
)

// Zeroes says what becomes of a WriteZeroes.
type Zeroes uint8

const (
	// ZeroesWrite stores the ciphertext of zeros.
	ZeroesWrite Zeroes = iota
	// ZeroesUnmap passes a WriteZeroes with MayUnmap on, if the lower device
	// supports it, and stores the others.
	ZeroesUnmap
)

// Options of a Device. The zero value is the default of a disk.
type Options struct {
	Discard Discard
	Zeroes  Zeroes
	// HugePages asks for huge pages below the bounce memory.
	HugePages bool
}

// Device is an encrypted block device.
type Device struct {
	layer     *bounce.Device
	transform *transform
	locked    atomic.Bool
}

// New makes a layer over lower that encrypts with x. The layer owns lower from now
// on: its Close closes it. x stays the caller's and has to outlive the layer. On an
// error both stay the caller's.
func New(lower blockdev.Device, x *cipher.XTS, opts Options) (*Device, error) {
	return newDevice(lower, x, opts, bounce.Config{HugePages: opts.HugePages})
}

// newDevice is New with the sizes of the bounce memory.
func newDevice(lower blockdev.Device, x *cipher.XTS, opts Options, cfg bounce.Config) (*Device, error) {
	if x == nil {
		return nil, fmt.Errorf("make encrypted device: %w", ErrNoCipher)
	}
	unit := x.UnitSize()
	if capacity := lower.Info().Capacity; capacity%int64(unit) != 0 {
		return nil, fmt.Errorf("make encrypted device: %d bytes in units of %d: %w", capacity, unit, ErrNotUnits)
	}
	if opts.Discard > DiscardIgnore || opts.Zeroes > ZeroesUnmap {
		return nil, fmt.Errorf("make encrypted device: %w", ErrPolicy)
	}
	t := &transform{x, unit}
	cfg.Transform, cfg.Unit = t, unit
	cfg.Discard, cfg.WriteZeroes = bounce.Pass, bounce.Store
	if opts.Discard == DiscardIgnore {
		cfg.Discard = bounce.Ignore
	}
	if opts.Zeroes == ZeroesUnmap {
		cfg.WriteZeroes = bounce.PassUnmap
	}
	layer, err := bounce.New(lower, cfg)
	if err != nil {
		return nil, fmt.Errorf("make encrypted device: %w", err)
	}
	return &Device{layer: layer, transform: t}, nil
}

// Info is that of the lower device, in blocks of at least one data unit.
func (d *Device) Info() blockdev.Info { return d.layer.Info() }

// OpenQueue opens a queue of the lower device and the bounce memory over it. It is
// called on the goroutine that is going to use the queue.
func (d *Device) OpenQueue(cfg blockdev.QueueConfig) (blockdev.Queue, error) {
	if d.locked.Load() {
		return newLockedQueue(cfg), nil
	}
	cipher.Scrub() // for Interrupted
	return d.layer.OpenQueue(cfg)
}

// Grow makes the lower device larger. The capacity is a whole number of blocks.
func (d *Device) Grow(capacity int64) error { return d.layer.Grow(capacity) }

// Close closes the lower device.
func (d *Device) Close() error { return d.layer.Close() }
