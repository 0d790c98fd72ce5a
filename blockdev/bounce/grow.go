package bounce

import (
	"fmt"

	"sealblk/blockdev"
)

// Grow makes the lower device larger. The capacity is a whole number of blocks of
// the layer.
func (d *Device) Grow(capacity int64) error {
	if capacity&int64(d.Info().LogicalBlockSize-1) != 0 {
		return fmt.Errorf("grow to %d bytes: %w", capacity, blockdev.ErrMisaligned)
	}
	return blockdev.Grow(d.lower, capacity)
}
