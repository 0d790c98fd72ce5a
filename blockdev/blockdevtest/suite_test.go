package blockdevtest_test

import (
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/memory"
	"sealblk/blockdev/null"
)

func open(t *testing.T, size int64, opts memory.Options) *memory.Device {
	t.Helper()
	d, err := memory.New(size, opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestMemory(t *testing.T) {
	for name, opts := range map[string]memory.Options{
		"512":         {},
		"1024":        {LogicalBlockSize: 1024, PhysicalBlockSize: 4096},
		"4096":        {LogicalBlockSize: 4096},
		"no features": {NoDiscard: true, NoWriteZeroes: true},
	} {
		t.Run(name, func(t *testing.T) {
			readOnly := opts
			readOnly.ReadOnly = true
			blockdevtest.Run(t,
				func(t *testing.T) blockdev.Device { return open(t, 5<<20+4096, opts) },
				blockdevtest.Options{
					DiscardZeroes: true,
					ReadOnly:      func(t *testing.T) blockdev.Device { return open(t, 1<<20, readOnly) },
				})
		})
	}
}

func TestNull(t *testing.T) {
	make := func(readOnly bool) func(*testing.T) blockdev.Device {
		return func(t *testing.T) blockdev.Device {
			d, err := null.New(4<<20, null.Options{ReadOnly: readOnly})
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
	}
	blockdevtest.Run(t, make(false), blockdevtest.Options{Null: true, DiscardZeroes: true, ReadOnly: make(true)})
}

func TestFault(t *testing.T) {
	for name, opts := range map[string]blockdevtest.FaultOptions{
		"in order":         {},
		"reversed":         {Order: blockdevtest.Reversed},
		"shuffled":         {Order: blockdevtest.Shuffled, Seed: 1},
		"async":            {Async: true, Seed: 2},
		"async reversed":   {Async: true, Order: blockdevtest.Reversed, Seed: 3},
		"async, shuffled":  {Async: true, Order: blockdevtest.Shuffled, Seed: 4},
		"async over async": {Async: true, Order: blockdevtest.Shuffled, Seed: 5},
	} {
		t.Run(name, func(t *testing.T) {
			blockdevtest.Run(t, func(t *testing.T) blockdev.Device {
				var lower blockdev.Device = open(t, 4<<20, memory.Options{})
				if name == "async over async" {
					lower = blockdevtest.NewFault(lower, opts)
				}
				return blockdevtest.NewFault(lower, opts)
			}, blockdevtest.Options{DiscardZeroes: true, Largest: 1 << 20})
		})
	}
}
