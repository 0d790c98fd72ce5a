package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/internal/leaktest"
)

// loopDevice makes a host block device over an image.
func loopDevice(t *testing.T, image string, sector int) string {
	t.Helper()
	losetup := leaktest.Tool(t, "losetup")
	out, err := exec.Command(losetup, "--find", "--show", "--sector-size", strconv.Itoa(sector), image).CombinedOutput()
	if err != nil {
		leaktest.Missing(t, "loop devices: "+strings.TrimSpace(string(out)))
	}
	path := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command(losetup, "--detach", path).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %s", path, out)
		}
	})
	return path
}

func TestBlockDeviceContract(t *testing.T) {
	blockContract(t, loopDevice(t, image(t, 16<<20), 4096))
}

// TestBlockDeviceWithDiscardOnly: what a device leaves that can discard and not make
// zeros may be the old data, so it is not asked to. A loop device over tmpfs finds at
// the first try that it cannot make zeros, and withdraws that.
func TestBlockDeviceWithDiscardOnly(t *testing.T) {
	path := loopDevice(t, memoryImage(t, 16<<20), 4096)
	d := open(t, path, Options{LogicalBlockSize: 4096})
	drive(t, d, 1).Must(&blockdev.Request{Op: blockdev.WriteZeroes, Length: 4096})
	if d.queueLimit("write_zeroes_max_bytes") != 0 || d.queueLimit("discard_max_bytes") == 0 {
		leaktest.Missing(t, "a block device with discard only")
	}
	if f := open(t, path, Options{LogicalBlockSize: 4096}).Info().Features; f.Discard || f.ZeroesUnmap || !f.WriteZeroes {
		t.Errorf("features %+v", f)
	}
	blockContract(t, path)
}

func blockContract(t *testing.T, path string) {
	eachVariant(t, func(t *testing.T, o Options) {
		if o.Direct == DirectOff {
			return // no different from a file's
		}
		o.LogicalBlockSize, o.Offset, o.Size = 4096, 4<<20, 8<<20
		blockdevtest.Run(t, func(t *testing.T) blockdev.Device {
			d, err := Open(path, o)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}, blockdevtest.Options{DiscardZeroes: true})
	})
}

// TestBlocksBelowSectors: requests of 512 bytes on sectors of 4096 work, through
// the page cache.
func TestBlocksBelowSectors(t *testing.T) {
	path := loopDevice(t, image(t, 4<<20), 4096)
	if _, err := Open(path, Options{Direct: DirectOn}); !errors.Is(err, blockdev.ErrMisaligned) {
		t.Errorf("direct I/O: %v", err)
	}
	d := open(t, path, Options{})
	if got := d.Describe(); !strings.Contains(got, "buffered (direct I/O needs blocks of 4096 bytes") {
		t.Errorf("describes itself as %s", got)
	}
	info := d.Info()
	if info.Capacity != 4<<20 || info.LogicalBlockSize != 512 || info.PhysicalBlockSize != 4096 || !info.Features.Discard {
		t.Errorf("info %+v", info)
	}
	drv := drive(t, d, 4)
	want := blockdevtest.Noise(1, 64<<10)
	drv.Write(512, want)
	drv.Must(&blockdev.Request{Op: blockdev.WriteZeroes, Offset: 1024, Length: 512},
		&blockdev.Request{Op: blockdev.Discard, Offset: 512 * 3, Length: 512})
	clear(want[512:1024])
	if got := drv.Read(512, 1024); !bytes.Equal(got, want[:1024]) {
		t.Error("a range of 512 bytes is not zeros")
	}
	if got := drv.Read(2048, 4096); !bytes.Equal(got, want[1536:1536+4096]) {
		t.Error("a discard reached further than its range")
	}
}

func TestBlockDeviceThatIsClaimed(t *testing.T) {
	path := loopDevice(t, image(t, 4<<20), 512)
	open(t, path, Options{Lock: true})
	if _, err := Open(path, Options{Lock: true}); !errors.Is(err, blockdev.ErrBusy) {
		t.Errorf("second open: %v", err)
	}
	if _, err := Open(path, Options{Lock: true, ReadOnly: true}); !errors.Is(err, blockdev.ErrBusy) {
		t.Errorf("second open, read-only: %v", err)
	}
}

// flushes is the number of flushes that a block device has been sent.
func flushes(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/sys/block/%s/stat", filepath.Base(path)))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	const flushField = 15 // the 16th, see Documentation/block/stat.rst
	if len(fields) <= flushField {
		leaktest.Missing(t, "a count of flushes (Linux 5.5)")
	}
	n, err := strconv.Atoi(fields[flushField])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestFlushReachesDevice counts what arrives below.
func TestFlushReachesDevice(t *testing.T) {
	path := loopDevice(t, image(t, 4<<20), 512)
	eachVariant(t, func(t *testing.T, o Options) {
		drv := drive(t, open(t, path, o), 4)
		for _, c := range []struct {
			name string
			req  *blockdev.Request
			want bool
		}{
			{"read", rw(blockdev.Read, 0, make([]byte, 4096)), false},
			{"write", rw(blockdev.Write, 0, make([]byte, 4096)), false},
			{"flush", &blockdev.Request{Op: blockdev.Flush}, true},
			{"write with FUA", &blockdev.Request{Op: blockdev.Write, FUA: true, Length: 4096, Buffers: [][]byte{make([]byte, 4096)}}, true},
			{"write zeroes with FUA", &blockdev.Request{Op: blockdev.WriteZeroes, FUA: true, Length: 4096}, true},
			{"discard with FUA", &blockdev.Request{Op: blockdev.Discard, FUA: true, Length: 4096}, true},
		} {
			before := flushes(t, path)
			drv.Must(c.req)
			if got := flushes(t, path) - before; (got > 0) != c.want {
				t.Errorf("%s: %d flushes", c.name, got)
			}
		}
	})
}
