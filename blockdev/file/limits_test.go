package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/internal/leaktest"
)

const variantEnv = "SEALBLK_FILE_TEST_VARIANT"

// fsizeChild meets the limit of file sizes in the middle of a write and prints what
// became of it and of the requests beside it.
func fsizeChild() {
	signal.Ignore(unix.SIGXFSZ)
	variant, _ := strconv.Atoi(os.Getenv(variantEnv))
	d, err := Open(os.Getenv(pathEnv), variants[variant].opts)
	if err != nil {
		fmt.Println(err)
		return
	}
	limit := unix.Rlimit{Cur: 512 << 10, Max: 512 << 10}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		fmt.Println(err)
		return
	}
	q, err := d.OpenQueue(blockdev.QueueConfig{Depth: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	drv := blockdevtest.NewDriver(fatal{}, q, 4)
	below, across, beyond := rw(blockdev.Write, 0, make([]byte, 4096)), rw(blockdev.Write, 256<<10, make([]byte, 512<<10)),
		rw(blockdev.Write, 768<<10, make([]byte, 4096))
	drv.Run(below, across, beyond, rw(blockdev.Read, 0, make([]byte, 4096)))
	fmt.Printf("%v, %v, %v\n", below.Err, across.Err, beyond.Err)
	fmt.Println(errors.Join(q.Close(), d.Close()))
}

// fatal is a test that reports to standard output.
type fatal struct{}

func (fatal) Helper() {}
func (fatal) Fatalf(format string, args ...any) {
	fmt.Printf(format+"\n", args...)
	os.Exit(1)
}

func TestWriteBeyondFileSizeLimit(t *testing.T) {
	for i, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			needEngine(t, v.opts.Engine)
			c := startChild(t, "fsize", pathEnv+"="+image(t, 1<<20), variantEnv+"="+strconv.Itoa(i))
			if got, want := c.line(t), fmt.Sprintf("<nil>, %v, %v\n", unix.EFBIG, unix.EFBIG); got != want {
				t.Errorf("writes below, across and beyond the limit: %swant %s", got, want)
			}
			if got := c.line(t); got != "<nil>\n" {
				t.Errorf("close: %s", got)
			}
			c.end(t)
		})
	}
}

// smallFS mounts a file system of 1 MiB.
func smallFS(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		leaktest.Missing(t, "the right to mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullFileSystem: a thin image on a file system that is too small for it.
func TestFullFileSystem(t *testing.T) {
	dir := smallFS(t)
	for _, e := range []Engine{EngineUring, EngineThreads} {
		t.Run(e.String(), func(t *testing.T) {
			needEngine(t, e)
			path := dir + "/disk.img"
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, 4<<20); err != nil {
				t.Fatal(err)
			}
			drv := drive(t, open(t, path, Options{Engine: e}), 4)
			want := blockdevtest.Noise(1, 256<<10)
			drv.Write(0, want)
			if err := drv.Do(rw(blockdev.Write, 1<<20, make([]byte, 2<<20))); err != unix.ENOSPC {
				t.Errorf("write to a full file system: %v", err)
			}
			if got := drv.Read(0, 256<<10); !bytes.Equal(got, want) {
				t.Error("earlier data is lost")
			}
			drv.Must(&blockdev.Request{Op: blockdev.Discard, Offset: 0, Length: 4 << 20})
			drv.Write(3<<20, want)
		})
	}
}

func TestLargeAndManyBuffers(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		const size = 64 << 20
		path := image(t, size)
		drv := drive(t, open(t, path, o), 2)
		want := blockdevtest.Noise(7, size)
		drv.Write(0, want)
		// 4096 buffers, of which one system call takes a quarter.
		in := make([]byte, size)
		r := &blockdev.Request{Op: blockdev.Read, Length: size}
		for at := 0; at < size; at += size / 4096 {
			r.Buffers = append(r.Buffers, in[at:at+size/4096])
		}
		drv.Must(r)
		if !bytes.Equal(in, want) {
			t.Fatal("a large read differs from what was written")
		}
		stored, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(stored, want) {
			t.Fatalf("the file differs from what was written (%v)", err)
		}
	})
}
