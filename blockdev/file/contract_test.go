package file

import (
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
)

func TestContract(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		make := func(o Options) func(t *testing.T) blockdev.Device {
			return func(t *testing.T) blockdev.Device {
				d, err := Open(image(t, o.Offset+8<<20), o)
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
		}
		readOnly := o
		readOnly.ReadOnly = true
		blockdevtest.Run(t, make(o), blockdevtest.Options{DiscardZeroes: true, ReadOnly: make(readOnly)})
	})
}

// TestContractBehindHeader: larger blocks, data behind a header, and a ring that is
// smaller than every batch.
func TestContractBehindHeader(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		o.Offset, o.Size, o.LogicalBlockSize, o.Lock = 16<<20, 4<<20, 4096, true
		open := func(t *testing.T) blockdev.Device {
			d, err := Open(memoryImage(t, o.Offset+5<<20), o)
			if err != nil {
				t.Fatal(err)
			}
			d.ringEntries = 2
			return d
		}
		blockdevtest.Run(t, open, blockdevtest.Options{Depth: 33, DiscardZeroes: true})
	})
}
