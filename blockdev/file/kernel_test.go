package file

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/internal/eventfd"
)

// TestReadOfCutFile: the backing file shrank while the device was open.
func TestReadOfCutFile(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		for _, size := range []int64{0, 64 << 10, 64<<10 + 700} {
			path := image(t, 1<<20)
			drv := drive(t, open(t, path, o), 8)
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
			across, beyond := rw(blockdev.Read, 0, make([]byte, 256<<10)), rw(blockdev.Read, 512<<10, make([]byte, 4096))
			last := rw(blockdev.Read, 64<<10, make([]byte, 4096))
			drv.Run(across, beyond, last)
			if across.Err != blockdev.ErrShort || beyond.Err != blockdev.ErrShort || last.Err != blockdev.ErrShort {
				t.Errorf("cut to %d: %v, %v, %v", size, across.Err, beyond.Err, last.Err)
			}
			if size > 0 {
				drv.Read(0, 64<<10)
			}
		}
	})
}

// replace puts an eventfd, which can be neither synced nor allocated, in the place
// of the device's file.
func replace(t *testing.T, d *Device) (restore func()) {
	t.Helper()
	was, err := unix.Dup(d.fd)
	if err != nil {
		t.Fatal(err)
	}
	e, err := eventfd.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(e.FD(), d.fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	e.Close()
	return func() {
		if err := unix.Dup3(was, d.fd, unix.O_CLOEXEC); err != nil {
			t.Error(err)
		}
		unix.Close(was)
	}
}

// TestFlushReachesKernel: a file that cannot be synced makes Flush fail, so the
// call is made.
func TestFlushReachesKernel(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		d := open(t, image(t, 1<<20), o)
		restore := replace(t, d)
		flush := &blockdev.Request{Op: blockdev.Flush}
		if err := drive(t, d, 1).Do(flush); err != unix.EINVAL {
			t.Errorf("flush of a file without sync: %v", err)
		}
		restore()
		if err := drive(t, d, 1).Do(flush); err != unix.EIO {
			t.Errorf("flush after a failed one: %v", err)
		}
		if err := drive(t, open(t, d.file.Name(), o), 1).Do(flush); err != nil {
			t.Errorf("flush after the device was opened again: %v", err)
		}
	})
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	return stat(t, path).blocks * 512
}

func TestSpaceOfErasedRanges(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		const size = 4 << 20
		path := image(t, size)
		d := open(t, path, o)
		if !d.Info().Features.Discard {
			t.Fatal("no discard on the file system of the tests")
		}
		drv := drive(t, d, 4)
		for _, c := range []struct {
			name  string
			req   blockdev.Request
			freed bool
		}{
			{"discard", blockdev.Request{Op: blockdev.Discard, Length: size}, true},
			{"write zeroes, may unmap", blockdev.Request{Op: blockdev.WriteZeroes, MayUnmap: true, Length: size}, true},
			{"write zeroes", blockdev.Request{Op: blockdev.WriteZeroes, Length: size}, false},
		} {
			drv.Write(0, blockdevtest.Noise(1, size))
			drv.Must(&blockdev.Request{Op: blockdev.Flush})
			drv.Must(&c.req)
			if got := allocated(t, path); (got < size/2) != c.freed {
				t.Errorf("%s: %d of %d bytes are allocated", c.name, got, size)
			}
			if !bytes.Equal(drv.Read(0, size), make([]byte, size)) {
				t.Errorf("%s: the range does not read as zeros", c.name)
			}
		}
	})
}

// TestZerosAreWrittenWithoutZeroRange: the way for file systems without it.
func TestZerosAreWrittenWithoutZeroRange(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		const size = 40 << 20 // more than one write names
		d := open(t, image(t, size), o)
		d.noZeroRange.Store(true)
		drv := drive(t, d, 4)
		want := blockdevtest.Noise(1, size)
		drv.Write(0, want)
		drv.Must(&blockdev.Request{Op: blockdev.WriteZeroes, FUA: true, Offset: 512, Length: size - 1024})
		clear(want[512 : size-512])
		if !bytes.Equal(drv.Read(0, size), want) {
			t.Error("the device differs from the model")
		}
	})
}
