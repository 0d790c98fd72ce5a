package attach

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/disk"
	"sealblk/internal/filelock"
	"sealblk/qmp"
)

func TestAttachStartsAndDetachStops(t *testing.T) {
	h := newHost(t)
	a, err := h.attach("serves")
	if err != nil {
		t.Fatal(err)
	}
	pid, ok := h.exporter()
	if !ok || !a.Started || a.PID != pid || a.SocketPath != h.c.SocketPath("db") || h.vms["/vm"].devices["sealblk-db"] != a.SocketPath {
		t.Fatalf("%+v, export with pid %d, %v", a, pid, h.vms["/vm"].devices)
	}
	if _, err := h.attach("serves"); !errors.Is(err, ErrAttached) {
		t.Fatalf("twice: %v; want ErrAttached", err)
	}
	if _, err := Detach(t.Context(), h.c, "db"); err != nil {
		t.Fatal(err)
	}
	h.wantNothing()
	_, err = Detach(t.Context(), h.c, "db")
	if !errors.Is(err, ErrNotAttached) {
		t.Fatalf("detached twice: %v; want ErrNotAttached", err)
	}
	oneLine(t, err)
}

// TestRunningExportIsUsedAndLeft: what an operator started is the operator's to stop,
// also when an attach fails.
func TestRunningExportIsUsedAndLeft(t *testing.T) {
	h := newHost(t)
	stop := h.export()
	pid, _ := h.exporter()
	h.vms["/vm"].onAttach = func(context.Context) error { return qmp.ErrNoSlot }
	if _, err := h.attach("fails"); !errors.Is(err, qmp.ErrNoSlot) {
		t.Fatal(err)
	}
	h.vms["/vm"].onAttach = nil
	a, err := h.attach("fails")
	if err != nil || a.Started || a.PID != pid {
		t.Fatalf("%+v, %v; want the export with pid %d", a, err, pid)
	}
	if _, err := Detach(t.Context(), h.c, "db"); err != nil {
		t.Fatal(err)
	}
	if now, ok := h.exporter(); !ok || now != pid {
		t.Fatal("the export was stopped")
	}
	stop()
	h.wantNothing()
}

func TestFailedAttachStopsWhatItStarted(t *testing.T) {
	h := newHost(t)
	h.vms["/vm"].onAttach = func(context.Context) error { return qmp.ErrNoSlot }
	if _, err := h.attach("serves"); !errors.Is(err, qmp.ErrNoSlot) {
		t.Fatal(err)
	}
	h.wantNothing()
	if _, err := Attach(t.Context(), h.c, Options{Disk: "db", QMP: "/nowhere", Program: program(h.c.Dir(), "serves")}); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if _, err := Attach(t.Context(), h.c, Options{Disk: "none", QMP: "/vm"}); !errors.Is(err, disk.ErrNotFound) {
		t.Fatal(err)
	}
	h.wantNothing()
}

// TestAttachKilledWithItsExport: an attach that is killed when its export has begun, and
// nothing else, leaves one that the next attach takes for its own, and detach stops.
func TestAttachKilledWithItsExport(t *testing.T) {
	for _, again := range []bool{false, true} {
		h := newHost(t)
		a := Attachment{Disk: "db", ID: "sealblk-db", QMP: "/vm"}
		p, err := start(t.Context(), h.c, Options{Disk: "db", Program: program(h.c.Dir(), "serves")}, a.starting(h.c))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.end)
		if again {
			if a, err = h.attach("fails"); err != nil || !a.Started || a.PID != p.cmd.Process.Pid {
				t.Fatalf("%+v, %v", a, err)
			}
		}
		if _, err := Detach(t.Context(), h.c, "db"); err != nil {
			t.Fatal(err)
		}
		h.wantNothing()
	}
}

// TestAttachKilledBeforeItsExportIsReady: one that still waits, for a KMS perhaps, is ended
// by detach, and makes way for another attach.
func TestAttachKilledBeforeItsExportIsReady(t *testing.T) {
	for _, again := range []bool{false, true} {
		h := newHost(t)
		waiting := h.killedAttach()
		if again {
			if a, err := h.attach("serves"); err != nil || !a.Started || a.PID == waiting.PID {
				t.Fatalf("%+v, %v", a, err)
			}
			if alive(waiting.PID) {
				t.Error("the export that waited is left")
			}
		}
		if _, err := Detach(t.Context(), h.c, "db"); err != nil {
			t.Fatal(err)
		}
		if alive(waiting.PID) {
			t.Error("the export that waited is left")
		}
		h.wantNothing()
	}
}

// TestPIDOfAnother: a process that got the pid of an export that has gone is left alone.
func TestPIDOfAnother(t *testing.T) {
	h := newHost(t)
	a := h.killedAttach()
	for _, other := range []uint64{0, a.Began - 1} {
		note := a
		note.Began = other
		if err := note.save(h.c); err != nil {
			t.Fatal(err)
		}
		if _, err := Detach(t.Context(), h.c, "db"); err != nil {
			t.Fatal(err)
		}
		if !alive(a.PID) {
			said, _ := os.ReadFile(filepath.Join(h.c.Dir(), "run", "db.log"))
			t.Fatalf("a process was stopped that began at %d, not %d; it said: %s", a.Began, other, said)
		}
	}
}

// killedAttach kills an attach while its export starts, which goes on with that.
func (h *host) killedAttach() Attachment {
	h.t.Helper()
	self := program(h.c.Dir(), "attaches by one that hangs")
	cmd := exec.Command(self[0], self[1:]...)
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	a := h.awaitNote()
	for pid := 0; pid != a.PID; pid, _ = h.started() { // the attach has told its own before
		time.Sleep(time.Millisecond)
	}
	cmd.Process.Kill()
	cmd.Wait()
	h.t.Cleanup(func() { unix.Kill(a.PID, unix.SIGKILL) })
	return a
}

// TestExportThatFails: the user reads the export's own last words, not that a child
// ended.
func TestExportThatFails(t *testing.T) {
	for mode, want := range map[string]string{
		"fails":         "attach disk db: start its export: disk db: the sky has fallen; put it up again",
		"dies silently": "attach disk db: start its export: it ended without a word",
	} {
		h := newHost(t)
		_, err := h.attach(mode)
		if oneLine(t, err); err != nil && err.Error() != want {
			t.Errorf("%s: %v", mode, err)
		}
		h.wantNothing()
	}
	h := newHost(t)
	_, err := Attach(t.Context(), h.c, Options{Disk: "db", QMP: "/vm", Program: []string{"/no/such/program"}})
	if oneLine(t, err); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	h.wantNothing()
}

// TestNoteOutlivesItsExport: a roll-back that is cut short, as by a second Ctrl-C while the
// export drains, leaves none that detach does not know.
func TestNoteOutlivesItsExport(t *testing.T) {
	h := newHost(t)
	h.vms["/vm"].onAttach = func(context.Context) error { return qmp.ErrNoSlot }
	if _, err := h.attach("serves, and tells of its note"); !errors.Is(err, qmp.ErrNoSlot) {
		t.Fatal(err)
	}
	h.wantNothing()
	if _, err := os.Stat(filepath.Join(h.c.Dir(), "noted")); err != nil {
		t.Errorf("the note went before the export: %v", err)
	}
}

// TestQEMUThatStoppedAnswering: it may do later what it was asked for, and then needs its
// back-end; detach, as the error advises, clears away what is there by then.
func TestQEMUThatStoppedAnswering(t *testing.T) {
	h := newHost(t)
	v := h.vms["/vm"]
	v.onAttach = func(context.Context) error {
		return fmt.Errorf("run device_add: no answer (%w: no answer)", qmp.ErrNotRolledBack)
	}
	if _, err := h.attach("serves"); !errors.Is(err, qmp.ErrNotRolledBack) {
		t.Fatal(err)
	}
	if _, ok := h.exporter(); !ok {
		t.Error("the export was taken from under QEMU")
	}
	v.devices["sealblk-db"] = "late"
	if _, err := Detach(t.Context(), h.c, "db"); err != nil {
		t.Error(err)
	}
	h.wantNothing()
}

// TestGuestThatHolds: the note and the export stay as long as the VM may use them, and
// a later detach ends both.
func TestGuestThatHolds(t *testing.T) {
	h := newHost(t)
	v := h.vms["/vm"]
	v.onAttach = func(context.Context) error {
		v.devices["sealblk-db"] = "half"
		return fmt.Errorf("no reply (%w: %w)", qmp.ErrNotRolledBack, qmp.ErrGuestHolds)
	}
	if _, err := h.attach("serves"); !errors.Is(err, qmp.ErrGuestHolds) {
		t.Fatal(err)
	}
	v.onDetach = func(context.Context) error { return qmp.ErrGuestHolds }
	for range 2 {
		if _, ok := h.exporter(); !ok {
			t.Fatal("the export was taken from under the guest")
		}
		if _, err := Detach(t.Context(), h.c, "db"); !errors.Is(err, qmp.ErrGuestHolds) {
			t.Fatal(err)
		}
	}
	v.onDetach = nil
	if _, err := Detach(t.Context(), h.c, "db"); err != nil {
		t.Fatal(err)
	}
	h.wantNothing()
}

// TestCancelledAttach: Ctrl-C at any step leaves nothing behind.
func TestCancelledAttach(t *testing.T) {
	steps := map[string]func(h *host, cancel func()) (mode string){
		"before it began": func(_ *host, cancel func()) string { cancel(); return "serves" },
		"while the export starts": func(h *host, cancel func()) string {
			go func() { h.awaitStarted(); cancel() }()
			return "hangs"
		},
		"while the disk is plugged": func(h *host, cancel func()) string {
			h.vms["/vm"].onAttach = func(ctx context.Context) error { cancel(); return ctx.Err() }
			return "serves"
		},
	}
	for name, prepare := range steps {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			mode := prepare(h, cancel)
			_, err := Attach(ctx, h.c, Options{Disk: "db", QMP: "/vm", Program: program(h.c.Dir(), mode)})
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			h.wantNothing()
		})
	}
}

// TestExportThatDoesNotEnd: one that hangs while it starts is killed in the end.
func TestExportThatDoesNotEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	h := newHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { h.awaitStarted(); cancel() }()
	_, err := Attach(ctx, h.c, Options{Disk: "db", QMP: "/vm", Program: program(h.c.Dir(), "hangs and ignores signals")})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	h.wantNothing()
}

func TestStaleNotes(t *testing.T) {
	gone := func(h *host) Attachment {
		return Attachment{Disk: "db", ID: "x", QMP: "/gone", Started: true, PID: 1 << 22, Since: time.Now()}
	}
	t.Run("VM and export have gone", func(t *testing.T) {
		h := newHost(t)
		if err := gone(h).save(h.c); err != nil {
			t.Fatal(err)
		}
		if _, err := Detach(t.Context(), h.c, "db"); err != nil {
			t.Fatal(err)
		}
		h.wantNothing()
		if err := gone(h).save(h.c); err != nil {
			t.Fatal(err)
		}
		if _, err := h.attach("serves"); err != nil {
			t.Fatal(err)
		}
		if _, err := Detach(t.Context(), h.c, "db"); err != nil {
			t.Fatal(err)
		}
		h.wantNothing()
	})
	t.Run("only the VM has gone", func(t *testing.T) {
		h := newHost(t)
		if _, err := h.attach("serves"); err != nil {
			t.Fatal(err)
		}
		h.vms = map[string]*vm{"/other": newVM()}
		a, err := Attach(t.Context(), h.c, Options{Disk: "db", QMP: "/other", Program: program(h.c.Dir(), "fails")})
		if err != nil || !a.Started {
			t.Fatalf("%+v, %v", a, err)
		}
		if _, err := Detach(t.Context(), h.c, "db"); err != nil {
			t.Fatal(err)
		}
		h.wantNothing()
	})
	t.Run("a failed attach keeps the old one", func(t *testing.T) {
		h := newHost(t)
		if _, err := h.attach("serves"); err != nil {
			t.Fatal(err)
		}
		h.vms = map[string]*vm{"/other": newVM()}
		h.vms["/other"].onAttach = func(context.Context) error { return qmp.ErrNoSlot }
		if _, err := Attach(t.Context(), h.c, Options{Disk: "db", QMP: "/other", Program: program(h.c.Dir(), "fails")}); !errors.Is(err, qmp.ErrNoSlot) {
			t.Fatal(err)
		}
		if _, err := Detach(t.Context(), h.c, "db"); err != nil {
			t.Fatalf("nobody can stop the export: %v", err)
		}
		h.wantNothing()
	})
	t.Run("another export has taken the place", func(t *testing.T) {
		h := newHost(t)
		if err := gone(h).save(h.c); err != nil {
			t.Fatal(err)
		}
		h.export()
		if _, err := Detach(t.Context(), h.c, "db"); err != nil {
			t.Fatal(err)
		}
		if _, ok := h.exporter(); !ok {
			t.Fatal("an export that attach did not start was stopped")
		}
	})
	t.Run("the record has gone", func(t *testing.T) {
		h := newHost(t)
		if _, err := h.attach("serves"); err != nil {
			t.Fatal(err)
		}
		record := filepath.Join(h.c.Dir(), "disks", "db.json")
		data, err := os.ReadFile(record)
		if err == nil {
			err = os.Remove(record)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Detach(t.Context(), h.c, "db"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(record, data, 0o600); err != nil {
			t.Fatal(err)
		}
		h.wantNothing()
	})
	t.Run("damaged", func(t *testing.T) {
		for _, text := range []string{"", "{", `{"disk":"other"}`} {
			h := newHost(t)
			if err := os.WriteFile(notePath(h.c, "db"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := h.attach("serves")
			oneLine(t, err)
			_, err = Detach(t.Context(), h.c, "db")
			oneLine(t, err)
			h.wantNoExport()
		}
	})
}

// TestNotesOfDisksWithAlikeNames: a disk may be called as another's files are.
func TestNotesOfDisksWithAlikeNames(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"db.attach", "db.json", "db.attach.json", strings.Repeat("n", 63)} {
		if _, err := h.c.Create(t.Context(), disk.CreateOptions{Name: name, SizeBytes: 512}); err != nil {
			t.Fatal(err)
		}
		a, err := Attach(t.Context(), h.c, Options{Disk: name, QMP: "/vm", Program: program(h.c.Dir(), "serves")})
		if err != nil {
			t.Fatal(err)
		}
		if len(a.ID) > 64 {
			t.Errorf("QEMU knows no ids of %d letters", len(a.ID))
		}
		if _, err := Detach(t.Context(), h.c, "db"); !errors.Is(err, ErrNotAttached) {
			t.Errorf("%s is taken for db: %v", name, err)
		}
		if _, err := Detach(t.Context(), h.c, name); err != nil {
			t.Fatal(err)
		}
	}
	h.wantNothing()
}

func TestOneAtATime(t *testing.T) {
	h := newHost(t)
	lock, err := begin(h.c, "db")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.attach("serves"); !errors.Is(err, ErrBusy) {
		t.Errorf("attach: %v; want ErrBusy", err)
	}
	if _, err := Detach(t.Context(), h.c, "db"); !errors.Is(err, ErrBusy) {
		t.Errorf("detach: %v; want ErrBusy", err)
	}
	lock.Close()
	if filelock.Held(lock.Name()) {
		t.Error("the lock outlives the command")
	}
	h.wantNothing()
}

// TestExportIsOnItsOwn: it inherits no descriptor, keeps no folder busy, hears no key of
// the terminal and survives who started it; another command detaches it.
func TestExportIsOnItsOwn(t *testing.T) {
	h := newHost(t)
	marker, err := os.Create(filepath.Join(h.c.Dir(), "marker"))
	if err != nil {
		t.Fatal(err)
	}
	defer marker.Close()
	self := program(h.c.Dir(), "attaches")
	cmd := exec.Command(self[0], self[1:]...)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cmd.ExtraFiles = []*os.File{marker, w} // as a careless caller leaves them open
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "attached <nil>\n" {
		t.Fatal(line)
	}
	pid, ok := h.exporter()
	if !ok {
		t.Fatal("no export")
	}
	wantOnItsOwn(t, h, pid)

	// Ctrl-C on the terminal, then the end of the command.
	if err := unix.Kill(-cmd.Process.Pid, unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if now, ok := h.exporter(); !ok || now != pid {
		t.Fatal("the export ended with the command that started it")
	}
	h.vms["/vm"].devices["sealblk-db"] = "as the command left it"
	if _, err := Detach(t.Context(), h.c, "db"); err != nil {
		t.Fatal(err)
	}
	h.wantNothing()
	log, err := os.ReadFile(filepath.Join(h.c.Dir(), "run", "db.log"))
	if err != nil || strings.Contains(string(log), "panic") {
		t.Fatalf("%s, %v", log, err)
	}
}

func wantOnItsOwn(t *testing.T, h *host, pid int) {
	t.Helper()
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d, %v", sid, err)
	}
	proc := fmt.Sprintf("/proc/%d/", pid)
	if dir, err := os.Readlink(proc + "cwd"); err != nil || dir != "/" {
		t.Errorf("it works in %s, %v", dir, err)
	}
	entries, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, _ := os.Readlink(proc + "fd/" + e.Name())
		foreign := strings.HasSuffix(target, "/marker") || strings.HasPrefix(target, "pipe:")
		if len(e.Name()) == 1 && e.Name() <= "2" {
			foreign = target != os.DevNull && !strings.HasSuffix(target, "/run/db.log")
		}
		if foreign {
			t.Errorf("descriptor %s is %s", e.Name(), target)
		}
	}
}
