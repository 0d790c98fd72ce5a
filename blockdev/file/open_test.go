package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/internal/leaktest"
)

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	disk := image(t, 1<<20)
	for _, c := range []struct {
		name, path string
		opts       Options
		want       error
		text       string
	}{
		{"missing file", filepath.Join(dir, "none"), Options{}, fs.ErrNotExist, "none"},
		{"directory", dir, Options{}, blockdev.ErrNotSupported, "neither a regular file"},
		{"fifo", fifo, Options{}, blockdev.ErrNotSupported, "neither a regular file"},
		{"character device", os.DevNull, Options{}, blockdev.ErrNotSupported, "neither a regular file"},
		{"block size", disk, Options{LogicalBlockSize: 513}, blockdev.ErrNotSupported, "513"},
		{"large blocks", disk, Options{LogicalBlockSize: 8192}, blockdev.ErrNotSupported, "8192"},
		{"odd offset", disk, Options{Offset: 100}, blockdev.ErrMisaligned, "100"},
		{"negative offset", disk, Options{Offset: -512}, blockdev.ErrMisaligned, "-512"},
		{"odd size", disk, Options{Size: 1000}, blockdev.ErrMisaligned, "1000"},
		{"negative size", disk, Options{Size: -512}, blockdev.ErrMisaligned, "-512"},
		{"size too large", disk, Options{Size: 1<<20 + 512}, blockdev.ErrShort, "it has 1048576 bytes, the device needs 1049088 at offset 0"},
		{"offset and size too large", disk, Options{Offset: 512, Size: 1 << 20}, blockdev.ErrShort, "at offset 512"},
		{"offset at the end", disk, Options{Offset: 1 << 20}, blockdev.ErrShort, "it has 1048576 bytes"},
		{"offset far beyond the end", disk, Options{Offset: 1 << 62, Size: 1 << 62}, blockdev.ErrShort, "it has 1048576 bytes"},
		{"less than a block", image(t, 100), Options{}, blockdev.ErrShort, "it has 100 bytes"},
		{"empty file", image(t, 0), Options{}, blockdev.ErrShort, "it has 0 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := stat(t, c.path)
			d, err := Open(c.path, c.opts)
			if err == nil {
				d.Close()
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got: %v", err)
			}
			if after := stat(t, c.path); after != before {
				t.Errorf("the file was altered: %+v, before %+v", after, before)
			}
		})
	}
}

// stat is what Open must leave as it is.
func stat(t *testing.T, path string) (s struct {
	size, blocks int64
	mtime        unix.Timespec
}) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err == nil {
		s.size, s.blocks, s.mtime = st.Size, st.Blocks, st.Mtim
	}
	return s
}

func TestCapacity(t *testing.T) {
	path := image(t, 1<<20+4096+700)
	for _, c := range []struct {
		opts Options
		want int64
	}{
		{Options{}, 1<<20 + 4096 + 512},
		{Options{LogicalBlockSize: 4096}, 1<<20 + 4096},
		{Options{Offset: 512, LogicalBlockSize: 4096}, 1<<20 + 4096},
		{Options{Offset: 4096}, 1<<20 + 512},
		{Options{Size: 512}, 512},
	} {
		if got := open(t, path, c.opts).Info().Capacity; got != c.want {
			t.Errorf("%+v: capacity %d, want %d", c.opts, got, c.want)
		}
	}
}

func TestOpenDoesNotGrowOrFill(t *testing.T) {
	path := image(t, 8<<20)
	before := stat(t, path)
	d := open(t, path, Options{})
	drive(t, d, 1).Read(0, 1<<20)
	if after := stat(t, path); after.size != before.size || after.blocks != before.blocks {
		t.Errorf("%+v became %+v", before, after)
	}
}

func TestReadOnlyFile(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		path := image(t, 1<<20)
		if err := os.Chmod(path, 0o400); err != nil {
			t.Fatal(err)
		}
		o.ReadOnly = true
		d := open(t, path, o)
		if info := d.Info(); !info.ReadOnly || info.Features.Discard || info.Features.WriteZeroes {
			t.Errorf("info %+v", info)
		}
		drv := drive(t, d, 1)
		drv.Read(0, 4096)
		if err := drv.Do(rw(blockdev.Write, 0, make([]byte, 512))); err != blockdev.ErrReadOnly {
			t.Errorf("write: %v", err)
		}
		drv.Must(&blockdev.Request{Op: blockdev.Flush})
	})
}

func TestDirectFallsBackWithReason(t *testing.T) {
	path := image(t, 1<<20)
	wanted := open(t, path, Options{Direct: DirectOn})
	if wanted.align.offset > 512 {
		t.Logf("direct I/O here needs blocks of %d", wanted.align.offset)
	}
	b := &backing{file: wanted.file, fd: wanted.fd, unit: 512}
	if err := b.fits(alignment{512, 4096}); !errors.Is(err, blockdev.ErrMisaligned) {
		t.Errorf("blocks that are too small: %v", err)
	}
	b.unit, b.offset = 4096, 512
	if err := b.fits(alignment{512, 4096}); !errors.Is(err, blockdev.ErrMisaligned) {
		t.Errorf("an offset that is not aligned: %v", err)
	}

	// /proc has files without direct I/O, and a size that they do not tell; sysfs
	// has those with one page.
	const attribute = "/sys/kernel/mm/transparent_hugepage/enabled"
	if _, err := os.Stat(attribute); err != nil {
		leaktest.Missing(t, "sysfs with transparent huge pages: "+err.Error())
	}
	d := open(t, attribute, Options{ReadOnly: true})
	if d.align.mem != 0 || !strings.Contains(d.Describe(), "buffered (") {
		t.Errorf("describes itself as %s", d.Describe())
	}
	if _, err := Open(attribute, Options{ReadOnly: true, Direct: DirectOn}); err == nil {
		t.Error("direct I/O was demanded and not refused")
	}
	// It says 4096 bytes and has fewer.
	if err := drive(t, d, 1).Do(rw(blockdev.Read, 0, make([]byte, 4096))); err != blockdev.ErrShort {
		t.Errorf("read: %v", err)
	}
}

func TestDescribe(t *testing.T) {
	path := image(t, 1<<20)
	eachVariant(t, func(t *testing.T, o Options) {
		o.Offset = 4096
		got := open(t, path, o).Describe()
		for _, want := range []string{path, "1044480 bytes at offset 4096", o.Engine.String(),
			map[Direct]string{DirectOn: "direct (", DirectOff: "buffered"}[o.Direct]} {
			if !strings.Contains(got, want) {
				t.Errorf("%q does not say %q", got, want)
			}
		}
	})
}

func TestAlignedMemoryIsTakenAtItsWord(t *testing.T) {
	d := open(t, image(t, 1<<20), Options{Direct: DirectOn, AlignedMemory: true})
	align := d.MemoryAlignment()
	if align < 2 {
		t.Fatalf("memory alignment %d", align)
	}
	mem, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	drv := drive(t, d, 2)
	drv.Must(rw(blockdev.Write, 0, mem[:4096]), rw(blockdev.Read, 0, mem[align:align+512]))
	if err := drv.Do(rw(blockdev.Write, 0, mem[1:4097])); err != unix.EINVAL {
		t.Errorf("memory that breaks the promise: %v", err)
	}
}

func TestCloseWithOpenQueue(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		d := open(t, image(t, 1<<20), o)
		q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 2})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); !errors.Is(err, blockdev.ErrBusy) {
			t.Errorf("close of the device: %v", err)
		}
		blockdevtest.NewDriver(t, q, 2).Read(0, 512)
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
}
