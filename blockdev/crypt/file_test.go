package crypt

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/file"
	"sealblk/internal/leaktest"
	"sealblk/internal/uring"
)

// TestContractOnAlignedFile: the memory that the layer hands down needs no copy to
// be aligned, whatever memory the submitter has.
func TestContractOnAlignedFile(t *testing.T) {
	for _, engine := range []file.Engine{file.EngineUring, file.EngineThreads} {
		for _, unit := range []int{512, 4096} {
			t.Run(fmt.Sprintf("%v %d", engine, unit), func(t *testing.T) {
				opts := file.Options{Engine: engine, Direct: file.DirectOn, LogicalBlockSize: unit, AlignedMemory: true, Offset: 1 << 20}
				blockdevtest.Run(t, func(t *testing.T) blockdev.Device {
					return newLayer(t, openFile(t, opts), unit, Options{}, tiny)
				}, blockdevtest.Options{DiscardZeroes: true, Depth: 8})
			})
		}
	}
}

func openFile(t *testing.T, o file.Options) blockdev.Device {
	t.Helper()
	if err := uring.Probe(); err != nil && o.Engine == file.EngineUring {
		leaktest.Missing(t, err.Error())
	}
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 3<<20); err != nil {
		t.Fatal(err)
	}
	d, err := file.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
