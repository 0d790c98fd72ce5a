package file

import (
	"bytes"
	"os"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/bounce"
	"sealblk/internal/leaktest"
)

// inMemory is a device over a file in memory, and the file's path.
func inMemory(t *testing.T, size int64, o Options) (*Device, string) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		leaktest.Missing(t, "a tmpfs on /dev/shm")
	}
	path := memoryImage(t, size)
	o.AlignedMemory = true // no layer above
	return open(t, path, o), path
}

func viewer(t *testing.T, d *Device) blockdev.Viewer {
	t.Helper()
	v, ok := openQueue(t, d, 4).(blockdev.Viewer)
	if !ok {
		t.Fatalf("a file in memory cannot be reached: %s", d.Describe())
	}
	return v
}

func TestFileInMemoryIsServedInline(t *testing.T) {
	d, _ := inMemory(t, 1<<20, Options{})
	if d.engine != EngineInline || d.align.mem != 0 {
		t.Errorf("chosen: %s", d.Describe())
	}
	if _, ok := openQueue(t, open(t, image(t, 1<<20), Options{Engine: EngineInline, Direct: DirectOff}), 1).(blockdev.Viewer); ok {
		t.Error("a file on a disk is read through a mapping, which waits for the disk")
	}
}

// TestViewMakesNoPages: what is a hole stays one, whoever looks at it, and what was
// written is seen.
func TestViewMakesNoPages(t *testing.T) {
	const size = 1 << 20
	d, path := inMemory(t, 8192+size, Options{Offset: 8192})
	q := drive(t, d, 4)
	v := viewer(t, d)
	data := blockdevtest.Noise(3, 8192)
	q.Must(rw(blockdev.Write, 64<<10, data))
	before := allocated(t, path)
	for offset := int64(0); offset < size; offset += 4096 {
		b := v.View(blockdev.Read, offset, 4096)
		written := offset == 64<<10 || offset == 68<<10
		if (b != nil) != written {
			t.Fatalf("at %d: seen: %v, written: %v", offset, b != nil, written)
		}
		if written && !bytes.Equal(b, data[offset-64<<10:][:4096]) {
			t.Errorf("at %d: other data than was written", offset)
		}
	}
	if b := v.View(blockdev.Read, 64<<10-512, 1024); b != nil {
		t.Error("a range that begins in a hole is seen")
	}
	if b := v.View(blockdev.Write, 64<<10, 512); b != nil {
		t.Error("the mapping may be written")
	}
	if after := allocated(t, path); after != before {
		t.Errorf("looking made pages: %d bytes, then %d", before, after)
	}
}

func TestViewForgetsWhatIsDiscarded(t *testing.T) {
	for _, op := range []blockdev.Op{blockdev.Discard, blockdev.WriteZeroes} {
		const size = 2 << 20 // more than one word of the table
		d, path := inMemory(t, size, Options{})
		queue := openQueue(t, d, 4)
		q, v := blockdevtest.NewDriver(t, queue, 4), queue.(blockdev.Viewer)
		q.Must(rw(blockdev.Write, 0, blockdevtest.Noise(3, size)))
		if v.View(blockdev.Read, 0, size) == nil {
			t.Fatal("what was written is not seen")
		}
		const first, last = 36 << 10, size - 12<<10
		q.Must(&blockdev.Request{Op: op, MayUnmap: true, Offset: first, Length: last - first})
		before := allocated(t, path)
		for offset := int64(0); offset < size; offset += 4096 {
			hole := offset >= first && offset < last
			if got := v.View(blockdev.Read, offset, 4096) == nil; got != hole {
				t.Fatalf("op %v: at %d: unseen: %v, discarded: %v", op, offset, got, hole)
			}
		}
		if after := allocated(t, path); after != before {
			t.Errorf("op %v: looking made pages: %d bytes, then %d", op, before, after)
		}
	}
}

func TestViewOfAFileThatGrew(t *testing.T) {
	d, path := inMemory(t, 1<<20, Options{})
	v := viewer(t, d)
	if err := os.Truncate(path, 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := d.Grow(2 << 20); err != nil {
		t.Fatal(err)
	}
	data := blockdevtest.Noise(4, 4096)
	drive(t, d, 1).Must(rw(blockdev.Write, 3<<19, data))
	if b := v.View(blockdev.Read, 3<<19, 4096); !bytes.Equal(b, data) {
		t.Errorf("what was written where the file grew is not seen (%d bytes)", len(b))
	}
}

// TestViewOfAFileThatWasCut: the request fails, the process and the queue go on.
func TestViewOfAFileThatWasCut(t *testing.T) {
	d, path := inMemory(t, 1<<20, Options{})
	layer, err := bounce.New(d, bounce.Config{Unit: 512})
	if err != nil {
		t.Fatal(err)
	}
	q := drivePanicking(t, layer)
	data := blockdevtest.Noise(4, 1<<20)
	q.Must(rw(blockdev.Write, 0, data))
	read := func(offset int64) *blockdev.Request { return rw(blockdev.Read, offset, make([]byte, 4096)) }
	q.Must(read(0), read(1<<19))
	if err := os.Truncate(path, 1<<19); err != nil {
		t.Fatal(err)
	}
	lost, kept := read(1<<19), read(0)
	q.Run(lost, kept)
	if lost.Err != blockdev.ErrShort || kept.Err != nil || !bytes.Equal(kept.Buffers[0], data[:4096]) {
		t.Errorf("beyond the cut: %v, before it: %v", lost.Err, kept.Err)
	}
}

// drivePanicking is drive on a goroutine on which faults are panics.
func drivePanicking(t *testing.T, d blockdev.Device) *blockdevtest.Driver {
	t.Helper()
	old := debug.SetPanicOnFault(true)
	t.Cleanup(func() { debug.SetPanicOnFault(old) })
	return drive(t, d, 4)
}

// TestHoleInWhatHasGrown: a queue that has not served a request since the device grew
// forgets the pages there too.
func TestHoleInWhatHasGrown(t *testing.T) {
	d, path := inMemory(t, 1<<20, Options{})
	queue := openQueue(t, d, 4)
	q, v := blockdevtest.NewDriver(t, queue, 4), queue.(blockdev.Viewer)
	if err := os.Truncate(path, 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := d.Grow(2 << 20); err != nil {
		t.Fatal(err)
	}
	const at = 3 << 19
	drive(t, d, 1).Must(rw(blockdev.Write, at, blockdevtest.Noise(4, 4096)))
	if v.View(blockdev.Read, at, 4096) == nil {
		t.Fatal("what was written is not seen")
	}
	q.Must(&blockdev.Request{Op: blockdev.Discard, Offset: at, Length: 4096})
	if v.View(blockdev.Read, at, 4096) != nil {
		t.Error("a hole is seen")
	}
}
