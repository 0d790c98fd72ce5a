package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealblk/daemon/control"
	"sealblk/disk"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
	"sealblk/vhost/frontend"
)

// watcher is who watches the key of a disk for a test.
type watcher struct {
	t      *testing.T
	kms    *local.KMS
	key    string
	report chan func(error)
	tell   func(error)
}

// keyed is a host with the encrypted disk db, whose CMK a test may disable.
func keyed(t *testing.T, policy disk.KeyLossPolicy) (*host, *watcher) {
	t.Helper()
	h := newHost(t)
	k, err := local.Open(filepath.Join(h.catalogue.Dir(), "kms"), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	info, err := k.CreateKey(t.Context(), local.CreateOptions{})
	if err == nil {
		err = k.Authorize(t.Context(), info.KeyID, local.DiskService, []local.Permission{local.Generate, local.Decrypt})
	}
	if err == nil {
		_, err = h.catalogue.Create(t.Context(), disk.CreateOptions{Name: "db", SizeBytes: diskSize, Key: info.URI, OnKeyLoss: policy})
	}
	if err != nil {
		t.Fatal(err)
	}
	return h, &watcher{t: t, kms: k, key: info.KeyID, report: make(chan func(error), 1)}
}

func (w *watcher) options(grace time.Duration) Options {
	return Options{Disk: "db", FD: -1, LossGrace: grace, WatchKey: func(_ context.Context, report func(error)) error {
		w.report <- report
		return nil
	}}
}

// look asks the KMS as a broker does, and reports.
func (w *watcher) look() {
	if w.tell == nil {
		w.tell = <-w.report
	}
	w.tell(w.kms.As(local.DiskService).Usable(context.Background(), w.key, ""))
}

func (w *watcher) disable() {
	w.t.Helper()
	if err := w.kms.DisableKey(w.t.Context(), w.key); err != nil {
		w.t.Fatal(err)
	}
	w.look()
}

func (w *watcher) enable() {
	w.t.Helper()
	if err := w.kms.EnableKey(w.t.Context(), w.key); err != nil {
		w.t.Fatal(err)
	}
	w.look()
}

func (h *host) becomes(what string, cond func(control.Status) bool) {
	h.t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(h.status()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("never %s: %+v", what, h.status())
		}
	}
}

func (h *host) ioBecomes(state string) {
	h.t.Helper()
	h.becomes(state, func(s control.Status) bool { return s.IOState == state })
}

// read submits a read and does not wait for it.
func read(t *testing.T, q *frontend.Queue) *frontend.Request {
	t.Helper()
	r, err := q.NewRequest(4096)
	if err != nil {
		t.Fatal(err)
	}
	r.Type = frontend.TypeIn
	if err := errors.Join(q.Submit(r), q.Notify()); err != nil {
		t.Fatal(err)
	}
	return r
}

// waits checks that nothing is answered for a moment.
func waits(t *testing.T, q *frontend.Queue) {
	t.Helper()
	for range 20 {
		if n, err := q.Poll(make([]*frontend.Request, 1)); n != 0 || err != nil {
			t.Fatalf("%d requests were answered, %v", n, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func answered(t *testing.T, q *frontend.Queue) error {
	t.Helper()
	done := make([]*frontend.Request, 1)
	if n, err := q.Wait(done); n != 1 || err != nil {
		t.Fatalf("wait: %d, %v", n, err)
	}
	return done[0].Err()
}

func secrets() int64 { n, _ := secret.Live(); return n }

// TestPauseWaitsForTheKey: without its CMK the disk stands still and has no key; what the
// guest asked for is done when the CMK is back, and nothing that it does to its device
// needs the key.
func TestPauseWaitsForTheKey(t *testing.T) {
	h, w := keyed(t, disk.KeyLossPause)
	h.export(w.options(0))
	d := h.connect()
	defer d.Close()
	want := bytes.Repeat([]byte("what was written"), 256)
	if _, err := d.Queue(0).WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	w.look()
	h.becomes("usable", func(s control.Status) bool {
		return s.KeyState == "usable" && s.OnKeyLoss == "pause" && s.IOState == "running"
	})
	running := secrets()
	for range 3 {
		w.disable()
		h.ioBecomes("paused")
		if s := h.status(); s.KeyState != "disabled" || !s.Owner || !s.Connected {
			t.Errorf("%+v", s)
		}
		if n := secrets(); n != running-1 {
			t.Errorf("%d secrets while it runs, %d while it is paused", running, n)
		}
		r := read(t, d.Queue(0))
		waits(t, d.Queue(0))
		w.tell(fmt.Errorf("dial: %w", keymgr.ErrUnreachable)) // that changes nothing
		waits(t, d.Queue(0))
		w.enable()
		if err := answered(t, d.Queue(0)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.Data, want) {
			t.Error("reads something else after the pause")
		}
		h.ioBecomes("running")
	}
	w.disable()
	h.ioBecomes("paused")
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if h.status().Owner {
		t.Error("a paused disk is not given up")
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	if _, running, err := h.catalogue.Resize(t.Context(), "db", 2*diskSize); err != nil || !running {
		t.Fatal(running, err)
	}
	if s, err := control.Dial(h.catalogue.ControlPath("db")).Resize(t.Context(), 2*diskSize); err != nil || s.SizeBytes != 2*diskSize {
		t.Fatalf("resize: %+v, %v", s, err)
	}
	read(t, d.Queue(0))
	waits(t, d.Queue(0))
	w.enable()
	if err := answered(t, d.Queue(0)); err != nil {
		t.Fatal(err)
	}
	if !h.status().Owner {
		t.Error("the disk was not taken back")
	}
}

// TestStopWhilePaused: an export without a key drains and ends like any other.
func TestStopWhilePaused(t *testing.T) {
	h, w := keyed(t, disk.KeyLossPause)
	stop := h.export(w.options(0))
	d := h.connect()
	defer d.Close()
	w.disable()
	h.ioBecomes("paused")
	read(t, d.Queue(0))
	began := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := h.catalogue.Open(t.Context(), "db", disk.OpenOptions{}); !errors.Is(err, keymgr.ErrDisabled) {
		t.Errorf("the next export: %v", err)
	}
	entries, _ := os.ReadDir(filepath.Join(h.catalogue.Dir(), "run"))
	if len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestPausedUntilTheKMSAnswers: a CMK that is back is of no use while the KMS gives no data
// key; it is asked again.
func TestPausedUntilTheKMSAnswers(t *testing.T) {
	h, w := keyed(t, disk.KeyLossPause)
	h.export(w.options(0))
	d := h.connect()
	defer d.Close()
	w.disable()
	h.ioBecomes("paused")
	read(t, d.Queue(0))
	w.tell(nil) // too early
	h.becomes("usable", func(s control.Status) bool { return s.KeyState == "usable" })
	waits(t, d.Queue(0))
	if err := w.kms.EnableKey(t.Context(), w.key); err != nil { // and nobody is told
		t.Fatal(err)
	}
	if err := answered(t, d.Queue(0)); err != nil {
		t.Fatal(err)
	}
}

// TestDetachWipesAndFails: after the grace, and not before, the guest's requests fail and
// the key is gone, for good; the export ends with its front-end and says why.
func TestDetachWipesAndFails(t *testing.T) {
	h, w := keyed(t, disk.KeyLossDetach)
	const grace = 2 * time.Second // in which the mistake below is put right
	stop := h.export(w.options(grace))
	d := h.connect()
	if _, err := d.Queue(0).WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	running := secrets()
	w.disable()
	h.becomes("lost", func(s control.Status) bool { return s.KeyState == "disabled" })
	read(t, d.Queue(0))
	if err := answered(t, d.Queue(0)); err != nil {
		t.Errorf("within the grace: %v", err)
	}
	w.enable() // it was a mistake
	h.becomes("usable", func(s control.Status) bool { return s.KeyState == "usable" })
	time.Sleep(grace + grace/4) // nothing happens, which nothing tells
	if s := h.status(); s.IOState != "running" {
		t.Fatalf("%+v", s)
	}

	began := time.Now()
	w.disable()
	h.ioBecomes("failed")
	if took := time.Since(began); took < grace {
		t.Errorf("the grace was %v", took)
	}
	if n := secrets(); n != running-1 {
		t.Errorf("%d secrets while it runs, %d when it has failed", running, n)
	}
	for range 2 {
		read(t, d.Queue(0))
		if err := answered(t, d.Queue(0)); err == nil {
			t.Error("a read of a disk without a key succeeded")
		}
		w.enable() // too late
	}
	if s := h.status(); s.IOState != "failed" {
		t.Errorf("%+v", s)
	}
	d.Close() // while the key is back
	h.waitGone()
	if err := stop(); !errors.Is(err, ErrKeyLost) || !errors.Is(err, keymgr.ErrDisabled) || strings.Contains(err.Error(), "\n") {
		t.Errorf("the export ended with %v", err)
	}
}

// waitGone waits until the export has ended.
func (h *host) waitGone() {
	h.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := control.Dial(h.catalogue.ControlPath("db")).Status(context.Background())
		if errors.Is(err, control.ErrNotRunning) {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("the export does not end with its front-end: %v", err)
		}
	}
}

// TestKeepGoesOn: the loss is told, and is no more than that.
func TestKeepGoesOn(t *testing.T) {
	h, w := keyed(t, disk.KeyLossKeep)
	stop := h.export(w.options(0))
	d := h.connect()
	w.disable()
	h.becomes("lost", func(s control.Status) bool { return s.KeyState == "disabled" })
	if _, err := d.Queue(0).WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if s := h.status(); s.IOState != "running" || s.OnKeyLoss != "keep" {
		t.Errorf("%+v", s)
	}
	d.Close()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestPolicyOfARunningExport: it changes at once, and what was done stays done.
func TestPolicyOfARunningExport(t *testing.T) {
	h, w := keyed(t, disk.KeyLossKeep)
	h.export(w.options(0))
	d := h.connect()
	defer d.Close()
	w.disable()
	h.becomes("lost", func(s control.Status) bool { return s.KeyState == "disabled" })
	set := func(policy string) {
		t.Helper()
		s, err := control.Dial(h.catalogue.ControlPath("db")).SetOnKeyLoss(t.Context(), policy)
		if err != nil {
			t.Fatal(err)
		}
		h.becomes("so", func(s control.Status) bool { return s.OnKeyLoss == policy })
		_ = s
	}
	set("pause")
	h.ioBecomes("paused")
	read(t, d.Queue(0))
	set("keep")
	waits(t, d.Queue(0)) // there is no key
	set("detach")
	if err := answered(t, d.Queue(0)); err == nil {
		t.Error("a read of a disk without a key succeeded")
	}
	h.ioBecomes("failed")
	if _, err := control.Dial(h.catalogue.ControlPath("db")).SetOnKeyLoss(t.Context(), "panic"); err == nil {
		t.Error("took a policy that is none")
	}
}

// TestStandbyHonoursThePolicy: an export that stands by loses its key like the one that
// serves; the guest that comes to it waits.
func TestStandbyHonoursThePolicy(t *testing.T) {
	h, w := keyed(t, disk.KeyLossPause)
	h.export(w.options(0))
	source := h.connect()
	defer source.Close()
	w.look()
	other := &watcher{t: t, kms: w.kms, key: w.key, report: make(chan func(error), 1)}
	o := other.options(0)
	o.SocketPath, o.Incoming = h.socket+"2", true
	h.export(o)
	s, err := frontend.Dial(context.Background(), o.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	destination, err := frontend.Connect(s, frontend.Options{Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer destination.Close()
	before := secrets()
	other.look()
	w.disable()
	other.look()
	h.ioBecomes("paused")
	for end := time.Now().Add(10 * time.Second); secrets() != before-2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d secrets before, %d after", before, secrets())
		}
	}
	if err := source.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := destination.Start(); err != nil {
		t.Fatal(err)
	}
	read(t, destination.Queue(0))
	waits(t, destination.Queue(0))
	w.enable()
	other.look()
	if err := answered(t, destination.Queue(0)); err != nil {
		t.Fatal(err)
	}
	if !h.status().Owner {
		t.Error("nobody has the disk")
	}
}

// TestPlainDiskIsNotWatched: what has no key has no state of one.
func TestPlainDiskIsNotWatched(t *testing.T) {
	h := newHost(t)
	h.create("db", false, 512)
	h.export(Options{Disk: "db", FD: -1, WatchKey: func(context.Context, func(error)) error { return errors.New("watched") }})
	if s := h.status(); s.KeyState != "" || s.OnKeyLoss != "" || s.IOState != "running" {
		t.Errorf("%+v", s)
	}
	if _, err := control.Dial(h.catalogue.ControlPath("db")).SetOnKeyLoss(t.Context(), "pause"); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("%v", err)
	}
}
