package file

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
)

// TestGrow: what lies behind the old end is served once the file and then the
// device are longer, through queues that were open before.
func TestGrow(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		const before, after, offset = 1 << 20, 2 << 20, 8192
		path := image(t, before+offset)
		o.Size, o.Offset, o.LogicalBlockSize = before, offset, 4096
		d := open(t, path, o)
		drv := drive(t, d, 2)
		if err := d.Grow(after); !errors.Is(err, blockdev.ErrShort) {
			t.Errorf("grow beyond the file: %v", err)
		}
		if err := os.Truncate(path, after+offset); err != nil {
			t.Fatal(err)
		}
		want := blockdevtest.Noise(1, 64<<10)
		if err := drv.Do(rw(blockdev.Write, before, want)); err != blockdev.ErrOutOfRange {
			t.Errorf("write behind the end before Grow: %v", err)
		}
		if err := blockdev.Grow(d, after); err != nil {
			t.Fatal(err)
		}
		if got := d.Info().Capacity; got != after {
			t.Errorf("capacity %d", got)
		}
		drv.Write(before-4096, want)
		if got := drv.Read(before-4096, int64(len(want))); !bytes.Equal(got, want) {
			t.Error("wrong data across the old end")
		}
		for _, c := range []struct {
			capacity int64
			want     error
		}{{before, blockdev.ErrOutOfRange}, {after + 512, blockdev.ErrMisaligned}, {after + 4096, blockdev.ErrShort}, {after, nil}} {
			if err := d.Grow(c.capacity); !errors.Is(err, c.want) {
				t.Errorf("grow to %d: %v", c.capacity, err)
			}
		}
	})
}
