package worker

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sealblk/blockdev/file"
	"sealblk/daemon/control"
	"sealblk/daemon/resize"
	"sealblk/disk"
	"sealblk/vhost/frontend"
)

// TestResizeWhileServing: a front-end is told of the new size and uses it, a later
// export has it too.
func TestResizeWhileServing(t *testing.T) {
	for name, o := range map[string]struct {
		encrypted bool
		unit      int
		engine    file.Engine
	}{"plain": {false, 512, file.EngineUring}, "encrypted 512": {true, 512, file.EngineUring}, "encrypted 4096": {true, 4096, file.EngineThreads}} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.create("db", o.encrypted, o.unit)
			stop := h.export(Options{Disk: "db", FD: -1, Engine: o.engine})
			told := make(chan frontend.Config, 10)
			d, err := frontend.Open(context.Background(), h.socket, frontend.Options{
				Timeout: 10 * time.Second, ConfigChanged: func(c frontend.Config) { told <- c },
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := resize.Disk(t.Context(), h.catalogue, "db", 2*diskSize); err != nil {
				t.Fatal(err)
			}
			select {
			case c := <-told:
				if c.Capacity != 2*diskSize/512 {
					t.Errorf("told of %d sectors", c.Capacity)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("not told")
			}
			want := bytes.Repeat([]byte("sealed"), 64<<10/6+1)[:64<<10]
			if _, err := d.Queue(0).WriteAt(want, 2*diskSize-int64(len(want))); err != nil {
				t.Fatal(err)
			}
			status, err := control.Dial(h.catalogue.ControlPath("db")).Status(t.Context())
			if err != nil || status.SizeBytes != 2*diskSize {
				t.Errorf("status: %d bytes, %v", status.SizeBytes, err)
			}
			if err := errors.Join(d.Close(), stop()); err != nil {
				t.Fatal(err)
			}
			h.export(Options{Disk: "db", FD: -1, Engine: o.engine})
			d = h.connect()
			defer d.Close()
			got := make([]byte, len(want))
			if _, err := d.Queue(0).ReadAt(got, 2*diskSize-int64(len(want))); err != nil || !bytes.Equal(got, want) || d.Capacity() != 2*diskSize {
				t.Errorf("a later export: %d bytes, %v", d.Capacity(), err)
			}
		})
	}
}

// TestResizeWhileStandingBy: a front-end that asked for the configuration before the disk
// was resized is told; by an export of another state directory when that takes the disk.
func TestResizeWhileStandingBy(t *testing.T) {
	for name, o := range map[string]struct{ encrypted, elsewhere bool }{
		"plain": {false, false}, "encrypted": {true, false}, "another state directory": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			r := h.create("db", o.encrypted, 512)
			h.export(Options{Disk: "db", FD: -1})
			source := h.connect()
			defer source.Close()
			other := h
			if o.elsewhere {
				other = h.another(r)
			}
			told := make(chan frontend.Config, 10)
			destination := other.standWith(frontend.Options{
				Timeout: 10 * time.Second, ConfigChanged: func(c frontend.Config) { told <- c },
			})
			if _, err := resize.Disk(t.Context(), h.catalogue, "db", 2*diskSize); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(source.Stop(), destination.Start()); err != nil {
				t.Fatal(err)
			}
			select {
			case c := <-told:
				if c.Capacity != 2*diskSize/512 {
					t.Errorf("told of %d sectors", c.Capacity)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("not told")
			}
			if _, err := destination.Queue(0).WriteAt(make([]byte, 4096), 2*diskSize-4096); err != nil {
				t.Error(err)
			}
		})
	}
}

// another is a second state directory with the same KMS that has the disk.
func (h *host) another(r disk.Record) *host {
	h.t.Helper()
	other := newHost(h.t)
	err := os.Symlink(filepath.Join(h.catalogue.Dir(), "kms"), filepath.Join(other.catalogue.Dir(), "kms"))
	if err == nil {
		_, err = other.catalogue.Import(h.t.Context(), r.Name, r.Backend)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return other
}

// TestResizeThatWasNotMade: an export takes over no size that its file has not.
func TestResizeThatWasNotMade(t *testing.T) {
	h := newHost(t)
	h.create("db", true, 4096)
	h.export(Options{Disk: "db", FD: -1})
	client := control.Dial(h.catalogue.ControlPath("db"))
	for _, size := range []int64{2 * diskSize, diskSize - 4096, diskSize + 512, -4096} {
		if _, err := client.Resize(t.Context(), size); err == nil {
			t.Errorf("resized to %d", size)
		}
	}
	if status, err := client.Status(t.Context()); err != nil || status.SizeBytes != diskSize {
		t.Errorf("%d bytes, %v", status.SizeBytes, err)
	}
}
