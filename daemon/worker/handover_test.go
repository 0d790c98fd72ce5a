package worker

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sealblk/daemon/control"
	"sealblk/disk"
	"sealblk/vhost/frontend"
)

// stand starts a second export of a disk, and connects to it without starting rings.
func (h *host) stand() *frontend.Disk {
	h.t.Helper()
	return h.standWith(frontend.Options{Timeout: 10 * time.Second})
}

func (h *host) standWith(o frontend.Options) *frontend.Disk {
	h.t.Helper()
	socket := h.socket + "2"
	h.export(Options{Disk: "db", FD: -1, SocketPath: socket, Incoming: true})
	s, err := frontend.Dial(context.Background(), socket)
	if err != nil {
		h.t.Fatal(err)
	}
	d, err := frontend.Connect(s, o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { d.Close() })
	return d
}

func (h *host) status() control.Status {
	h.t.Helper()
	s, err := control.Dial(h.catalogue.ControlPath("db")).Status(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// TestHandover: a front-end that stands by is told all about the disk, and served once
// that of the other export has stopped all its rings; then the other is not, until it
// is the other way around.
func TestHandover(t *testing.T) {
	h := newHost(t)
	h.create("db", true, 512)
	h.export(Options{Disk: "db", FD: -1})
	source := h.connect()
	defer source.Close()
	destination := h.stand()
	if destination.Capacity() != diskSize {
		t.Errorf("capacity %d", destination.Capacity())
	}
	want := bytes.Repeat([]byte("moves on"), 512)
	if _, err := source.Queue(0).WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := destination.Start(); !errors.Is(err, frontend.ErrRefused) {
		t.Fatalf("a second owner started: %v", err)
	}
	if err := destination.Stop(); err != nil {
		t.Fatal(err)
	}
	from, to := source, destination
	for round := range 4 {
		if err := from.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := h.catalogue.Delete("db"); !errors.Is(err, disk.ErrInUse) {
			t.Errorf("delete between two owners: %v", err)
		}
		if err := to.Start(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if s, wantSocket := h.status(), []string{h.socket + "2", h.socket}[round%2]; s.SocketPath != wantSocket || !s.Owner {
			t.Errorf("round %d: the control socket leads to the export at %s, want %s", round, s.SocketPath, wantSocket)
		}
		got := make([]byte, len(want))
		if _, err := to.Queue(0).ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: read %.8q, %v", round, got, err)
		}
		if err := from.Start(); !errors.Is(err, frontend.ErrRefused) {
			t.Fatalf("round %d: who gave the disk away started: %v", round, err)
		}
		if err := from.Stop(); err != nil {
			t.Fatal(err)
		}
		want[0]++
		if _, err := to.Queue(0).WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		from, to = to, from
	}
}

// TestCancelledHandover: the source takes the disk back when nobody took it.
func TestCancelledHandover(t *testing.T) {
	h := newHost(t)
	h.create("db", true, 512)
	h.export(Options{Disk: "db", FD: -1})
	d := h.connect()
	defer d.Close()
	h.stand()
	for range 3 {
		if err := errors.Join(d.Stop(), d.Start(), d.Queue(0).Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if s := h.status(); !s.Owner || s.SocketPath != h.socket {
		t.Errorf("status %+v", s)
	}
}

// TestEndOfSessionKeepsTheDisk: a VM that dies leaves the disk with its export.
func TestEndOfSessionKeepsTheDisk(t *testing.T) {
	h := newHost(t)
	h.create("db", true, 512)
	h.export(Options{Disk: "db", FD: -1})
	d := h.connect()
	destination := h.stand()
	d.Session.Close() // without a word
	d.Close()
	if err := destination.Start(); !errors.Is(err, frontend.ErrRefused) {
		t.Fatalf("start: %v", err)
	}
	if err := destination.Stop(); err != nil {
		t.Fatal(err)
	}
}

// TestEndAfterHandover: the source's end takes nothing away from the destination, and
// neither leaves anything behind.
func TestEndAfterHandover(t *testing.T) {
	h := newHost(t)
	h.create("db", true, 512)
	stop := h.export(Options{Disk: "db", FD: -1})
	source := h.connect()
	destination := h.stand()
	if err := errors.Join(source.Stop(), destination.Start(), source.Close(), stop()); err != nil {
		t.Fatal(err)
	}
	if s := h.status(); s.SocketPath != h.socket+"2" || !s.Owner {
		t.Errorf("status %+v", s)
	}
	if rt, ok := h.catalogue.Runtime("db"); !ok || rt.SocketPath != h.socket+"2" {
		t.Errorf("runtime %+v", rt)
	}
	if err := destination.Queue(0).Flush(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(destination.Close(), control.Dial(h.catalogue.ControlPath("db")).Stop(context.Background())); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(h.catalogue.Dir(), "run")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		left, err := os.ReadDir(run)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v", left)
		}
	}
}

func TestPlainFileIsHandedOver(t *testing.T) {
	h := newHost(t)
	path := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	h.export(Options{BlkFile: path, FD: -1})
	source := h.connect()
	defer source.Close()
	h.export(Options{BlkFile: path, FD: -1, SocketPath: h.socket + "2", Incoming: true})
	s, err := frontend.Dial(context.Background(), h.socket+"2")
	if err != nil {
		t.Fatal(err)
	}
	destination, err := frontend.Connect(s, frontend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer destination.Close()
	if err := errors.Join(source.Stop(), destination.Start()); err != nil {
		t.Fatal(err)
	}
	if err := source.Start(); !errors.Is(err, frontend.ErrRefused) {
		t.Fatalf("two owners: %v", err)
	}
	if err := source.Stop(); err != nil {
		t.Fatal(err)
	}
}
