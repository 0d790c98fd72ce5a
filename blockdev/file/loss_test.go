package file

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

// lossy is a block device of 4 MiB that fails writes to more than a quarter of it.
func lossy(t *testing.T) string {
	t.Helper()
	image := smallFS(t) + "/disk.img"
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 4<<20); err != nil {
		t.Fatal(err)
	}
	return loopDevice(t, image, 512)
}

// TestLossInThePageCache: a write succeeds, and the cache cannot write it back. The
// kernel tells the first who syncs; we tell everybody after that.
func TestLossInThePageCache(t *testing.T) {
	for _, e := range []Engine{EngineUring, EngineThreads} {
		t.Run(e.String(), func(t *testing.T) {
			needEngine(t, e)
			path := lossy(t)
			o := Options{Engine: e, Direct: DirectOff}
			d := open(t, path, o)
			drv := drive(t, d, 4)
			flush := &blockdev.Request{Op: blockdev.Flush}
			drv.Must(flush)
			drv.Write(0, make([]byte, 3<<20))
			if err := drv.Do(flush); err != unix.EIO && err != unix.ENOSPC {
				t.Errorf("the first flush after the loss: %v", err)
			}
			if err := unix.Fdatasync(d.fd); err != nil {
				t.Logf("this kernel tells again: %v", err)
			}
			if err := drv.Do(flush); err != unix.EIO {
				t.Errorf("the second flush after the loss: %v", err)
			}
			if err := drive(t, d, 1).Do(flush); err != unix.EIO {
				t.Errorf("a flush by another queue: %v", err)
			}
			drive(t, open(t, path, o), 1).Must(flush)
		})
	}
}

// TestFailingDevice: what a device refuses fails by itself, and what it can do works.
func TestFailingDevice(t *testing.T) {
	for _, e := range []Engine{EngineUring, EngineThreads} {
		t.Run(e.String(), func(t *testing.T) {
			needEngine(t, e)
			drv := drive(t, open(t, lossy(t), Options{Engine: e, Direct: DirectOn}), 4)
			small, large := rw(blockdev.Write, 0, make([]byte, 4096)), rw(blockdev.Write, 1<<20, make([]byte, 3<<20))
			drv.Must(rw(blockdev.Write, 0, make([]byte, 4096))) // has its space from now on
			drv.Run(small, large, rw(blockdev.Read, 0, make([]byte, 4096)))
			if small.Err != nil || large.Err != unix.EIO && large.Err != unix.ENOSPC {
				t.Errorf("a small write %v, a large one %v", small.Err, large.Err)
			}
			drv.Read(0, 4<<20)
		})
	}
}

// TestMemoryThatIsGoneLosesNoData: a write whose buffer cannot be read fails, and tells
// nothing about the writes before it: a flush is as good as ever.
func TestMemoryThatIsGoneLosesNoData(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		drv := drive(t, open(t, image(t, 1<<20), o), 1)
		gone, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(gone)
		r := rw(blockdev.Write, 0, gone)
		r.FUA = true
		if err := drv.Do(r); err != unix.EFAULT {
			t.Errorf("a write from memory that is not there: %v", err)
		}
		drv.Must(&blockdev.Request{Op: blockdev.Flush})
	})
}
