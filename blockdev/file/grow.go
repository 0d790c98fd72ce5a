package file

import (
	"fmt"

	"sealblk/blockdev"
)

// Grow takes over more of the file, which has to be so long already: this package
// never extends one.
func (b *backing) Grow(capacity int64) error {
	if capacity&(b.unit-1) != 0 {
		return fmt.Errorf("grow to %d bytes: %w", capacity, blockdev.ErrMisaligned)
	}
	size, _, err := b.geometry(b.block)
	if err != nil {
		return err
	}
	if capacity > size-b.offset {
		return fmt.Errorf("%w: it has %d bytes, the device needs %d at offset %d", blockdev.ErrShort, size, capacity, b.offset)
	}
	for {
		old := b.capacity.Load()
		if capacity < old {
			return fmt.Errorf("grow from %d to %d bytes: %w", old, capacity, blockdev.ErrOutOfRange)
		}
		if b.capacity.CompareAndSwap(old, capacity) {
			return nil
		}
	}
}
