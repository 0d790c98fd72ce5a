package crypt

import (
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/bounce"
	"sealblk/blockdev/memory"
)

var tiny = bounce.Config{SmallChunk: 4096, LargeChunk: 8192, LargeChunks: 2}

func TestContract(t *testing.T) {
	for _, s := range []struct {
		name  string
		unit  int
		opts  Options
		cfg   bounce.Config
		lower memory.Options
		fault *blockdevtest.FaultOptions
	}{
		{name: "512", unit: 512},
		{name: "4096 on 512, tiny pool, later and out of order", unit: 4096, cfg: tiny,
			fault: &blockdevtest.FaultOptions{Async: true, Order: blockdevtest.Shuffled, Seed: 1}},
		{name: "512 on 4096, backwards, thin", unit: 512, opts: Options{Zeroes: ZeroesUnmap},
			lower: memory.Options{LogicalBlockSize: 4096}, fault: &blockdevtest.FaultOptions{Order: blockdevtest.Reversed}},
		{name: "2048, lower without features", unit: 2048, cfg: tiny,
			lower: memory.Options{NoDiscard: true, NoWriteZeroes: true}},
	} {
		t.Run(s.name, func(t *testing.T) {
			open := func(readOnly bool) func(*testing.T) blockdev.Device {
				return func(t *testing.T) blockdev.Device {
					opts := s.lower
					opts.ReadOnly = readOnly
					var lower blockdev.Device = newMemory(t, 1<<20, opts)
					if s.fault != nil {
						lower = blockdevtest.NewFault(lower, *s.fault)
					}
					return newLayer(t, lower, s.unit, s.opts, s.cfg)
				}
			}
			blockdevtest.Run(t, open(false), blockdevtest.Options{DiscardZeroes: true, ReadOnly: open(true), Depth: 8})
		})
	}
}

// TestContractDiscardIgnored: ignoring discards is within the contract too.
func TestContractDiscardIgnored(t *testing.T) {
	blockdevtest.Run(t, func(t *testing.T) blockdev.Device {
		return newLayer(t, newMemory(t, 1<<20, memory.Options{}), 4096, Options{Discard: DiscardIgnore}, tiny)
	}, blockdevtest.Options{Depth: 4})
}
