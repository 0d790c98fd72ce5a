package null

import (
	"errors"
	"testing"
)

// The contract of package blockdev is checked in blockdevtest.

func TestNewRefusesGeometry(t *testing.T) {
	for _, c := range []struct {
		capacity int64
		block    int
	}{{0, 512}, {-512, 512}, {4608, 4096}, {4096, 256}, {8192, 8192}, {3000, 1000}, {512, -512}} {
		if _, err := New(c.capacity, Options{LogicalBlockSize: c.block}); !errors.Is(err, ErrGeometry) {
			t.Errorf("%d bytes in blocks of %d: got %v", c.capacity, c.block, err)
		}
	}
}
