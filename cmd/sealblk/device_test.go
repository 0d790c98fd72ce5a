package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/vhost/frontend"
)

// loop is a host block device that can grow.
type loop struct {
	t           *testing.T
	path, image string
}

func newLoop(t *testing.T, size int64) *loop {
	t.Helper()
	l := &loop{t, "", filepath.Join(t.TempDir(), "image")}
	if err := os.WriteFile(l.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.lengthen(size)
	losetup := leaktest.Tool(t, "losetup")
	out, err := exec.Command(losetup, "--find", "--show", l.image).CombinedOutput()
	l.path = strings.TrimSpace(string(out))
	if err != nil {
		leaktest.Missing(t, "loop devices: "+l.path)
	}
	t.Cleanup(func() { l.setup("--detach") })
	return l
}

func (l *loop) setup(option string) {
	l.t.Helper()
	if out, err := exec.Command("losetup", option, l.path).CombinedOutput(); err != nil {
		l.t.Errorf("losetup %s %s: %v: %s", option, l.path, err, out)
	}
}

func (l *loop) lengthen(size int64) {
	l.t.Helper()
	if err := os.Truncate(l.image, size); err != nil {
		l.t.Fatal(err)
	}
}

// grow makes the device larger, as lvextend does.
func (l *loop) grow(size int64) {
	l.t.Helper()
	l.lengthen(size)
	l.setup("--set-capacity")
}

// TestBlockDeviceGrowsInTheSandbox: a disk on a block device is resized while its worker
// is in the sandbox, and all that a guest may ask works on the new part. Before the device
// has grown it is refused.
func TestBlockDeviceGrowsInTheSandbox(t *testing.T) {
	for _, c := range []struct{ engine, zeroes, encrypted string }{
		{"uring", "write", "--encrypted"},
		{"threads", "unmap", "--encrypted"},
		{"uring", "write", "--encrypted=false"},
		{"threads", "unmap", "--encrypted=false"},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			l, state := newLoop(t, 24<<20), t.TempDir()
			mustRun(t, state, "disk", "create", "db", "--size", "8M", "--backend", "file:"+l.path, c.encrypted)
			mustRun(t, state, "disk", "set", "db", "--zeroes", c.zeroes)
			s := serve(t, state, server(state, "export", "db", "--io-engine", c.engine))
			told := make(chan frontend.Config, 10)
			d, err := frontend.Open(context.Background(), s.socket, frontend.Options{
				Timeout: patience, ConfigChanged: func(c frontend.Config) { told <- c },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			confined(t, s.cmd.Process.Pid)
			tooSmall(t, state)
			l.grow(64 << 20)
			mustRun(t, state, "disk", "resize", "db", "40M")
			select {
			case now := <-told:
				if now.Capacity != 40<<20/512 {
					t.Errorf("told of %d sectors", now.Capacity)
				}
			case <-time.After(patience):
				t.Fatalf("not told of the new size after %v", patience)
			}
			use(t, d, 39<<20)
			d.Close()
			s.signal(syscall.SIGTERM)
			s.endsClean()
			mustRun(t, state, "disk", "check", "db")
		})
	}
}

func tooSmall(t *testing.T, state string) {
	t.Helper()
	out, err := program(t, state, "disk", "resize", "db", "40M").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("make the block device larger first")) {
		t.Fatalf("resize beyond the device: %v: %s", err, out)
	}
}

// use writes, reads and erases a MiB of a disk, from that byte on.
func use(t *testing.T, d *frontend.Disk, at int64) {
	t.Helper()
	q := d.Queue(0)
	want := bytes.Repeat([]byte("beyond! "), 1<<17)
	if _, err := q.WriteAt(want, at); err != nil {
		t.Fatal(err)
	}
	if err := q.Flush(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := q.ReadAt(got, at); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("reads something else: %v", err)
	}
	for typ, feature := range featureOf {
		if !d.Has(feature) {
			t.Errorf("feature %d is not offered", feature)
			continue
		}
		if _, err := q.WriteAt(want[:4096], at); err != nil {
			t.Fatal(err)
		}
		if err := q.Erase(typ, frontend.Range{Sector: uint64(at) / 512, Sectors: 8}); err != nil {
			t.Fatalf("request %d: %v", typ, err)
		}
		if _, err := q.ReadAt(got[:4096], at); err != nil || !bytes.Equal(got[:4096], make([]byte, 4096)) {
			t.Fatalf("after request %d the range is not zeros: %v", typ, err)
		}
	}
}
