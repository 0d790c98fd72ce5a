package bounce

import (
	"crypto/subtle"
	"fmt"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/memory"
)

// toy is a transform that depends on the place of every byte, and insists on its
// contract.
type toy struct{ unit int }

var keystream = blockdevtest.Noise(99, 64<<10)

func (x toy) apply(dst, src []byte, offset int64) {
	if len(dst) != len(src) || len(dst) == 0 || len(dst)%x.unit != 0 || offset%int64(x.unit) != 0 {
		panic(fmt.Sprintf("transform of %d to %d bytes at %d", len(src), len(dst), offset))
	}
	d, s := uintptr(unsafe.Pointer(&dst[0])), uintptr(unsafe.Pointer(&src[0]))
	if n := uintptr(len(dst)); d != s && d < s+n && s < d+n {
		panic("transform of memory that overlaps")
	}
	for i := 0; i < len(src); i += x.unit {
		at := (offset + int64(i)) / int64(x.unit) * 37 % (64<<10 - 4096)
		subtle.XORBytes(dst[i:], src[i:i+x.unit], keystream[at:])
	}
}

func (x toy) Outgoing(dst, src []byte, offset int64)           { x.apply(dst, src, offset) }
func (x toy) Incoming(dst, src []byte, offset int64, _ []byte) { x.apply(dst, src, offset) }

func newMemory(t testing.TB, size int64, opts memory.Options) *memory.Device {
	t.Helper()
	d, err := memory.New(size, opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newLayer(t testing.TB, lower blockdev.Device, cfg Config) *Device {
	t.Helper()
	d, err := New(lower, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// picky is a device like an O_DIRECT file: it refuses memory that is not aligned.
func picky(lower blockdev.Device, align int, opts blockdevtest.FaultOptions) blockdev.Device {
	f := blockdevtest.NewFault(lower, opts)
	f.OnSubmit(func(r *blockdev.Request) error {
		if !aligned(r.Buffers, align) {
			return unix.EINVAL
		}
		return nil
	})
	return f
}

var tiny = Config{SmallChunk: 4096, LargeChunk: 8192, LargeChunks: 1}

// with is tiny or another configuration with changes.
func with(cfg Config, change func(*Config)) Config {
	change(&cfg)
	return cfg
}

func TestContract(t *testing.T) {
	async := blockdevtest.FaultOptions{Async: true, Order: blockdevtest.Shuffled, Seed: 7}
	stored := func(unit int) func(*Config) {
		return func(c *Config) { c.Unit, c.Transform, c.WriteZeroes = unit, toy{unit}, Store }
	}
	type setup struct {
		name  string
		cfg   Config
		lower memory.Options
		fault *blockdevtest.FaultOptions
	}
	setups := []setup{
		{name: "copy", cfg: Config{}},
		{name: "copy, aligned straight", cfg: Config{Aligned: 512}, fault: &blockdevtest.FaultOptions{Order: blockdevtest.Reversed}},
		{name: "copy, tiny pool", cfg: tiny, fault: &async},
		{name: "copy, 4096 blocks", cfg: with(tiny, func(c *Config) { c.LargeChunks = 3; c.Aligned = 4096 }),
			lower: memory.Options{LogicalBlockSize: 4096}, fault: &async},
		{name: "units of 512", cfg: with(Config{}, stored(512))},
		{name: "units of 512, tiny pool", cfg: with(tiny, stored(512)), fault: &async},
		{name: "units of 1024, reversed", cfg: with(tiny, stored(1024)), fault: &blockdevtest.FaultOptions{Order: blockdevtest.Reversed}},
		{name: "units of 4096 on 512", cfg: with(tiny, stored(4096))},
		{name: "units of 512 on 4096", cfg: with(tiny, stored(512)), lower: memory.Options{LogicalBlockSize: 4096}, fault: &async},
	}
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			open := func(readOnly bool) func(t *testing.T) blockdev.Device {
				return func(t *testing.T) blockdev.Device {
					opts := s.lower
					opts.ReadOnly = readOnly
					opts.NoDiscard = s.cfg.WriteZeroes == Store // zeros below are no zeros through toy
					var lower blockdev.Device = newMemory(t, 3<<20, opts)
					if s.fault != nil {
						lower = picky(lower, 512, *s.fault)
					}
					return newLayer(t, lower, s.cfg)
				}
			}
			blockdevtest.Run(t, open(false), blockdevtest.Options{DiscardZeroes: true, ReadOnly: open(true), Largest: 2 << 20})
		})
	}
}
