package file

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/internal/leaktest"
	"sealblk/internal/uring"
)

// variants are all ways in which the package does its work.
var variants = []struct {
	name string
	opts Options
}{
	{"uring direct", Options{Engine: EngineUring, Direct: DirectOn}},
	{"uring buffered", Options{Engine: EngineUring, Direct: DirectOff}},
	{"threads direct", Options{Engine: EngineThreads, Direct: DirectOn}},
	{"inline direct", Options{Engine: EngineInline, Direct: DirectOn}},
	{"inline buffered", Options{Engine: EngineInline, Direct: DirectOff}},
	{"threads buffered", Options{Engine: EngineThreads, Direct: DirectOff}},
}

// eachVariant runs a test in all variants that this machine has.
func eachVariant(t *testing.T, test func(t *testing.T, o Options)) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			needEngine(t, v.opts.Engine)
			test(t, v.opts)
		})
	}
}

func needEngine(t *testing.T, e Engine) {
	t.Helper()
	if e != EngineUring {
		return
	}
	if err := uring.Probe(); err != nil {
		leaktest.Missing(t, err.Error())
	}
}

// image makes a file of zeros.
func image(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

// memoryImage is an image in memory, where a flush costs nothing, if it can be.
func memoryImage(t *testing.T, size int64) string {
	t.Helper()
	f, err := os.CreateTemp("/dev/shm", "sealblk-test-*.img")
	if err != nil {
		return image(t, size)
	}
	defer f.Close()
	t.Cleanup(func() { os.Remove(f.Name()) })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func open(t *testing.T, path string, o Options) *Device {
	t.Helper()
	d, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func openQueue(t *testing.T, d blockdev.Device, depth int) blockdev.Queue {
	t.Helper()
	q, err := d.OpenQueue(blockdev.QueueConfig{Depth: depth})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

func drive(t *testing.T, d blockdev.Device, depth int) *blockdevtest.Driver {
	t.Helper()
	return blockdevtest.NewDriver(t, openQueue(t, d, depth), depth)
}

func rw(op blockdev.Op, offset int64, data []byte) *blockdev.Request {
	return &blockdev.Request{Op: op, Offset: offset, Length: int64(len(data)), Buffers: [][]byte{data}}
}

const childEnv = "SEALBLK_FILE_TEST_CHILD"

// children are what the test program does when it is started as another process.
var children = map[string]func(){
	"lock":    lockChild,
	"fsize":   fsizeChild,
	"nouring": noUringChild,
}

// child is another process that runs one of children.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild(t *testing.T, name string, env ...string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(self)}
	c.cmd.Env = append(os.Environ(), append(env, childEnv+"="+name)...)
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// line is the next line that the child prints.
func (c *child) line(t *testing.T) string {
	t.Helper()
	s, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatalf("child ended: %v", err)
	}
	return s
}

// end closes the child's standard input and waits for it.
func (c *child) end(t *testing.T) {
	t.Helper()
	c.in.Close()
	if err := c.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}
