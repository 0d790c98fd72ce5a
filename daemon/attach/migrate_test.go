package attach

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/vhost/frontend"
)

// connect is the front-end of a VM, which runs or waits for its guest.
func connect(t *testing.T, socket string, runs bool) *frontend.Disk {
	t.Helper()
	s, err := frontend.Dial(context.Background(), socket)
	if err != nil {
		t.Fatal(err)
	}
	d, err := frontend.Connect(s, frontend.Options{Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if runs {
		if err := d.Start(); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestDetachOfADiskThatMigrated: the VM, where it is now, keeps its disk; what the attach
// made here is cleared away, and the user is told.
func TestDetachOfADiskThatMigrated(t *testing.T) {
	for name, leave := range map[string]func(h *host){
		"what is left of the VM is there": func(h *host) { h.vms["/vm"].migrated = true },
		"the VM has gone":                 func(h *host) { delete(h.vms, "/vm") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			a, err := h.attach("serves")
			if err != nil {
				t.Fatal(err)
			}
			source := connect(t, a.SocketPath, true)
			stop := h.exportAs("stands by")
			destination := connect(t, h.c.StandbySocketPath("db"), false)
			h.vms["/vm"].onDetach = func(context.Context) error {
				t.Error("a guest that has gone is asked for its disk")
				return nil
			}
			if err := errors.Join(source.Stop(), destination.Start()); err != nil {
				t.Fatal(err)
			}
			leave(h)
			now, _ := h.exporter()

			got, err := Detach(t.Context(), h.c, "db")
			if err != nil {
				t.Fatal(err)
			}
			if !got.Migrated || got.ServedBy == nil || got.ServedBy.PID != now || got.ServedBy.SocketPath != h.c.StandbySocketPath("db") {
				t.Errorf("%+v, the disk is with the export with pid %d", got, now)
			}
			if err := unix.Kill(a.PID, 0); alive(a.PID) {
				t.Errorf("the export that was attached to still runs: %v", err)
			}
			if _, err := destination.Queue(0).WriteAt(make([]byte, 4096), 0); err != nil {
				t.Errorf("the disk does not work any more where it is: %v", err)
			}
			_, err = Detach(t.Context(), h.c, "db")
			if oneLine(t, err); !errors.Is(err, ErrNotAttached) {
				t.Errorf("detached twice: %v; want ErrNotAttached", err)
			}
			if still, ok := h.exporter(); !ok || still != now {
				t.Error("an export that no attach started was stopped")
			}
			destination.Close()
			stop()
			h.vms = nil
			h.wantNothing()
		})
	}
}

// TestMigratedToAnotherHost: nobody here serves the disk any more.
func TestMigratedToAnotherHost(t *testing.T) {
	h := newHost(t)
	if _, err := h.attach("serves"); err != nil {
		t.Fatal(err)
	}
	h.vms["/vm"].migrated = true
	got, err := Detach(t.Context(), h.c, "db")
	if err != nil || !got.Migrated || got.ServedBy != nil {
		t.Errorf("%+v, %v", got, err)
	}
	h.vms = nil
	h.wantNothing()
}

// TestPausedMachineIsNotMigrated: its disk has no owner, and is still its disk.
func TestPausedMachineIsNotMigrated(t *testing.T) {
	h := newHost(t)
	a, err := h.attach("serves")
	if err != nil {
		t.Fatal(err)
	}
	paused := connect(t, a.SocketPath, true)
	if err := paused.Stop(); err != nil {
		t.Fatal(err)
	}
	h.exportAs("stands by")
	got, err := Detach(t.Context(), h.c, "db")
	if err != nil || got.Migrated {
		t.Errorf("%+v, %v", got, err)
	}
	if len(h.vms["/vm"].devices) != 0 {
		t.Error("the disk was not unplugged")
	}
}

// TestAttachAfterMigration: the note of a VM that has moved away keeps the disk out of no
// other.
func TestAttachAfterMigration(t *testing.T) {
	h := newHost(t)
	if _, err := h.attach("serves"); err != nil {
		t.Fatal(err)
	}
	h.vms["/vm"].migrated = true
	h.vms["/other"] = newVM()
	a, err := Attach(t.Context(), h.c, Options{Disk: "db", QMP: "/other", Program: program(h.c.Dir(), "fails")})
	if err != nil || !a.Started {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := Detach(t.Context(), h.c, "db"); err != nil {
		t.Fatal(err)
	}
	delete(h.vms, "/vm")
	h.wantNothing()
}

// TestDetachWhileAnotherVMUsesTheExport: a VM that migrated to and fro has another
// monitor. It is not to lose its disk because the first one is not there any more.
func TestDetachWhileAnotherVMUsesTheExport(t *testing.T) {
	h := newHost(t)
	a, err := h.attach("serves")
	if err != nil {
		t.Fatal(err)
	}
	delete(h.vms, "/vm")
	back := connect(t, a.SocketPath, true)
	_, err = Detach(t.Context(), h.c, "db")
	if oneLine(t, err); !errors.Is(err, ErrOtherVM) {
		t.Fatalf("%v; want ErrOtherVM", err)
	}
	if _, err := back.Queue(0).WriteAt(make([]byte, 4096), 0); err != nil {
		t.Errorf("the disk does not work any more: %v", err)
	}
	back.Close()
	if got, err := Detach(t.Context(), h.c, "db"); err != nil || got.Migrated {
		t.Errorf("%+v, %v", got, err)
	}
	h.wantNothing()
}
