package memory

import (
	"errors"
	"math"
	"testing"

	"sealblk/blockdev"
	"sealblk/internal/leaktest"
)

// The contract of package blockdev is checked in blockdevtest, which uses this
// device itself.

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestNewRefusesGeometry(t *testing.T) {
	for name, c := range map[string]struct {
		capacity int64
		opts     Options
	}{
		"no capacity":       {0, Options{}},
		"negative":          {-512, Options{}},
		"odd capacity":      {4096 + 512, Options{LogicalBlockSize: 4096}},
		"block too small":   {4096, Options{LogicalBlockSize: 256}},
		"block too large":   {8192, Options{LogicalBlockSize: 8192}},
		"odd block":         {3000, Options{LogicalBlockSize: 1000}},
		"odd physical":      {4096, Options{PhysicalBlockSize: 3000}},
		"odd limit":         {4096, Options{MaxCapacity: 5000}},
		"negative block":    {4096, Options{LogicalBlockSize: -512}},
		"smallest negative": {math.MinInt64, Options{}},
	} {
		if d, err := New(c.capacity, c.opts); !errors.Is(err, ErrGeometry) {
			t.Errorf("%s: got %v, %v", name, d, err)
		}
	}
}

func TestGrow(t *testing.T) {
	d, err := New(4096, Options{MaxCapacity: 16384})
	if err != nil {
		t.Fatal(err)
	}
	q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	write := func() error {
		r := &blockdev.Request{Op: blockdev.Write, Offset: 4096, Length: 512, Buffers: [][]byte{make([]byte, 512)}}
		q.Submit(r)
		q.Poll([]*blockdev.Request{nil})
		return r.Err
	}
	if err := write(); !errors.Is(err, blockdev.ErrOutOfRange) {
		t.Errorf("write past the end: %v", err)
	}
	if err := d.Grow(8192); err != nil || d.Info().Capacity != 8192 || len(d.Bytes()) != 8192 {
		t.Errorf("grow: %v, capacity %d", err, d.Info().Capacity)
	}
	if err := write(); err != nil {
		t.Errorf("write after growing: %v", err)
	}
	for _, bad := range []int64{4096, 8193, 16384 + 512} {
		if err := d.Grow(bad); !errors.Is(err, ErrGeometry) {
			t.Errorf("grow to %d: %v", bad, err)
		}
	}
	if err := errors.Join(q.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	if err := d.Close(); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
}
