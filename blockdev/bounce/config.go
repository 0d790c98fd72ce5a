package bounce

import (
	"fmt"

	"sealblk/blockdev"
	"sealblk/internal/prefetch"
)

// Transform changes data between the submitter's buffers and the bounce memory.
// dst and src have the same length, whole units; they are the same memory or do
// not overlap. offset is the device offset of the first byte. It is called from
// any number of goroutines and must not allocate.
type Transform interface {
	// Outgoing makes what is stored from what was written. src may be memory that
	// a guest changes: each byte is read once.
	Outgoing(dst, src []byte, offset int64)
	// Incoming makes what is read from what is stored. dst may be memory that a
	// guest sees and changes: it gets the result only, and is not read back. next is the
	// src of a call that comes soon, if that is known: its memory may be asked for in the
	// meantime, but its bytes are not there yet for certain.
	Incoming(dst, src []byte, offset int64, next []byte)
}

// Interruptible is a Transform that wants to know when a queue is closed with requests
// in flight: a fault in the submitter's memory may have cut Outgoing or Incoming short,
// on the goroutine that calls Interrupted now.
type Interruptible interface {
	Interrupted() error
}

// Policy says what becomes of a Discard or WriteZeroes.
type Policy uint8

const (
	// Pass hands the operation to the lower device, if that supports it.
	Pass Policy = iota
	// Ignore completes it without doing anything. For Discard only.
	Ignore
	// Store writes zeros that went through the transform. For WriteZeroes only.
	Store
	// PassUnmap passes a WriteZeroes with MayUnmap on, if the lower device supports
	// it, and stores the others.
	PassUnmap
)

// Config describes a layer. The zero value copies everything.
type Config struct {
	// Transform changes the data; nil copies.
	Transform Transform
	// Unit is the number of bytes that Transform works on at a time, a power of
	// two up to 4096. The logical block size of the layer is at least one unit. 0
	// means 1.
	Unit int
	// Aligned, a power of two, makes reads and writes go straight to the lower
	// device when each of their buffers starts at and has a multiple of so many
	// bytes. 0 sends everything through the bounce memory; there has to be no
	// Transform otherwise.
	Aligned int
	// Discard and WriteZeroes.
	Discard     Policy
	WriteZeroes Policy

	// SmallChunk and LargeChunk are chunk sizes in bytes, multiples of 4096; the
	// defaults are 16 KiB and 128 KiB.
	SmallChunk int
	LargeChunk int
	// LargeChunks is the number of large chunks of a queue; the default is 32.
	LargeChunks int
	// HugePages asks for pages of the kernel's pool of huge ones below the bounce
	// memory. Without, or if that has too few, the kernel makes huge pages by itself.
	HugePages bool
}

const pageSize = 4096

// complete fills in the defaults and checks the sizes.
func (c Config) complete() (Config, error) {
	setDefault(&c.Unit, 1)
	setDefault(&c.SmallChunk, 16<<10)
	setDefault(&c.LargeChunk, max(128<<10, c.SmallChunk))
	setDefault(&c.LargeChunks, 32)
	ok := powerOfTwo(c.Unit) && c.Unit <= pageSize &&
		(c.Aligned == 0 || powerOfTwo(c.Aligned) && c.Transform == nil) &&
		c.SmallChunk > 0 && c.SmallChunk%pageSize == 0 &&
		c.LargeChunk >= c.SmallChunk && c.LargeChunk%pageSize == 0 &&
		c.LargeChunks > 0 &&
		c.Discard <= Ignore && c.WriteZeroes <= PassUnmap && c.WriteZeroes != Ignore
	if !ok {
		return c, fmt.Errorf("check bounce layer: %w", ErrConfig)
	}
	if c.Transform == nil {
		c.Transform = plain{}
	}
	return c, nil
}

// hot is how many chunks of each size fit into one huge page: a quarter of it for small
// ones.
func (c *Config) hot(depth int) (small, large int) {
	small = min(depth, hugePage/4/c.SmallChunk)
	return small, min(c.LargeChunks, (hugePage-small*c.SmallChunk)/c.LargeChunk)
}

func setDefault(v *int, value int) {
	if *v == 0 {
		*v = value
	}
}

func powerOfTwo(n int) bool { return n > 0 && n&(n-1) == 0 }

// plain is the transform that changes nothing.
type plain struct{}

func (plain) Outgoing(dst, src []byte, _ int64) { copy(dst, src) }

func (plain) Incoming(dst, src []byte, _ int64, next []byte) {
	prefetch.Read(next)
	copy(dst, src)
}

// features are what the layer supports over a lower device.
func (c *Config) features(lower blockdev.Features) blockdev.Features {
	return blockdev.Features{
		Discard:     lower.Discard || c.Discard == Ignore,
		WriteZeroes: lower.WriteZeroes || c.WriteZeroes != Pass,
		ZeroesUnmap: lower.WriteZeroes && lower.ZeroesUnmap && c.WriteZeroes != Store,
	}
}
