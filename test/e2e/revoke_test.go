//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealblk/daemon/control"
	"sealblk/test/guest"
)

// lossDeadline is how soon a pause takes effect after its key was disabled.
const lossDeadline = 2 * time.Second

// patience is for a pause where it does not matter how soon it comes.
const patience = 30 * time.Second

// keyed makes the disk db under a key of its own.
func (h *host) keyed(size, policy string) {
	h.t.Helper()
	h.run("key", "create", "--alias", "alias/tenant")
	h.run("key", "authorize", "alias/tenant", "--principal", "disk-service", "--allow", "generate,decrypt,reencrypt")
	h.run("disk", "create", "db", "--size", size, "--key", "alias/tenant", "--on-key-loss", policy)
}

func (h *host) disable() time.Time { h.run("key", "disable", "alias/tenant"); return time.Now() }
func (h *host) enable() time.Time  { h.run("key", "enable", "alias/tenant"); return time.Now() }

func (s *side) status(t *testing.T) control.Status {
	t.Helper()
	status, err := s.control.Status(context.Background())
	if err != nil {
		t.Fatalf("status of the %s: %v", s.name, err)
	}
	return status
}

func (s *side) ioBecomes(t *testing.T, state string, within time.Duration) {
	t.Helper()
	for end := time.Now().Add(within); s.status(t).IOState != state; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the %s is not %s after %v: %+v", s.name, state, within, s.status(t))
		}
	}
}

// standsStill waits until an export has stopped to work, and sees that it stays so. It
// returns when it worked last.
func (s *side) standsStill(t *testing.T, d time.Duration) (last time.Time) {
	t.Helper()
	was := s.work(t)
	for last = time.Now(); time.Since(last) < d; time.Sleep(10 * time.Millisecond) {
		if now := s.work(t); now != was {
			was, last = now, time.Now()
		}
		if time.Since(last) > time.Minute {
			t.Fatal("it never stands still")
		}
	}
	return last
}

// troubles are what a guest's kernel says when a disk fails it.
const troubles = `dmesg | grep -iE "i/o error|timed out|hung|reset|blk_update|critical" || true`

func noTrouble(t *testing.T, vm *guest.VM) {
	t.Helper()
	if got := vm.Must(t, troubles); got != "" {
		t.Errorf("the guest's kernel complains:\n%s", got)
	}
}

// TestPause: a guest that reads and writes without a pause gets one when the key of its
// disk is disabled, and goes on when it is enabled, without having seen an error. The key is
// nowhere meanwhile.
func TestPause(t *testing.T) {
	h := newHost(t)
	h.keyed("24M", "pause")
	keys := h.dataKey("db")
	e := h.exportReadable("db", "--num-queues", "2")
	vm := boot(t, cold(e))
	vm.Must(t, load)
	export := h.side("export", "db", e)
	keys.mustBe(t, "while it runs", e, true)
	var took [3]time.Duration
	for i := range took {
		disabled := h.disable()
		export.ioBecomes(t, control.IOPaused, patience)
		paused := time.Since(disabled)
		last := export.standsStill(t, 3*time.Second).Sub(disabled)
		t.Logf("the last I/O was %v after the key was disabled", last)
		took[i] = max(paused, last)
		keys.mustBe(t, "while it is paused", e, false)
		if v := h.show("db"); v.KeyState != "disabled" || v.IOState != "paused" || v.State != "in-use" {
			t.Errorf("the disk is shown as %+v", v)
		}
		before := vm.Must(t, "cat /tmp/writes /tmp/reads")
		time.Sleep(500 * time.Millisecond) // the guest must not get on
		if after := vm.Must(t, "cat /tmp/writes /tmp/reads"); after != before {
			t.Errorf("the guest gets on: %q, then %q", before, after)
		}
		noTrouble(t, vm)
		enabled := h.enable()
		vm.Must(t, goesOn)
		t.Logf("the guest goes on %v after the key was enabled", time.Since(enabled))
	}
	slices.Sort(took[:])
	if took[1] > lossDeadline { // a host that stands still delays one pause
		t.Errorf("paused after %v, want %v for two of them", took, lossDeadline)
	}
	keys.mustBe(t, "when it goes on", e, true)
	if got := vm.Must(t, verify); strings.Count(got, "\n") != 1 {
		t.Errorf("after the pauses:\n%s", got)
	}
	noTrouble(t, vm)
	powerOff(t, vm)
	e.stop()
}

// TestPausedDiskIsNoPrison: the VM of a paused disk can be stopped and moved to another
// host, and its disk resized; the guest goes on where it is when the key is back. An export
// that serves nobody but waits ends as it should.
func TestPausedDiskIsNoPrison(t *testing.T) {
	h := newHost(t)
	h.keyed("24M", "pause")
	source := h.export("db", "--num-queues", "2")
	config := guest.Config{CPUs: 2, Disks: []guest.Disk{cold(source)}}
	vm := guest.ForTest(t, config)
	vm.Must(t, load)
	standby := h.incoming("db")
	target := machineFor(t, config, standby)
	here, there := h.side("source", "db", source), h.side("destination", "db", standby)
	h.disable()
	here.ioBecomes(t, control.IOPaused, patience)
	there.ioBecomes(t, control.IOPaused, patience)
	h.refused("in use", "disk", "delete", "db")

	m := monitor(t, vm)
	command(t, m, "stop", nil, nil)
	command(t, m, "cont", nil, nil)
	h.run("disk", "resize", "db", "32M")
	vm.Must(t, "until [ $(cat /sys/block/vda/size) = 65536 ]; do usleep 50000; done")
	startMigration(t, m, target, atOnce)
	migrationBecomes(t, m, is("completed"))
	vm.Kill()
	began := time.Now()
	source.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a paused export took %v to end", took)
	}
	noTrouble(t, target)
	h.enable()
	target.Must(t, goesOn)
	if !there.owns() {
		t.Error("the destination does not own the disk")
	}
	if got := target.Must(t, verify); strings.Count(got, "\n") != 1 {
		t.Errorf("after pause and migration:\n%s", got)
	}
	noTrouble(t, target)
	powerOff(t, target)
	standby.stop()
}

// TestRestartWhileKeyIsLost: an export that dies while it is paused cannot be started again
// without its key; its guest waits for it, and goes on when both are back.
func TestRestartWhileKeyIsLost(t *testing.T) {
	h := newHost(t)
	h.keyed("24M", "pause")
	e := h.export("db", "--num-queues", "2")
	vm := boot(t, cold(e))
	vm.Must(t, load)
	export := h.side("export", "db", e)
	h.disable()
	export.ioBecomes(t, control.IOPaused, patience)
	e.kill()
	for range 2 {
		h.refused("Rejected.Disabled", "export", "db", "--socket-path", e.socket)
		if v := h.show("db"); v.State != "available" {
			t.Errorf("the disk is shown as %+v", v)
		}
	}
	h.enable()
	e = h.export("db", "--num-queues", "2")
	vm.Must(t, goesOn)
	if got := vm.Must(t, verify); strings.Count(got, "\n") != 1 {
		t.Errorf("after pause and restart:\n%s", got)
	}
	noTrouble(t, vm)
	powerOff(t, vm)
	e.stop()
}

// TestDetachOnKeyLoss: a guest gets errors once the grace is over, the key is nowhere, the
// disk can be unplugged, and is back with all that was flushed when the key is back.
func TestDetachOnKeyLoss(t *testing.T) {
	h := newHost(t)
	h.keyed("16M", "keep")
	keys := h.dataKey("db")
	config := filepath.Join(h.dir, "config.toml")
	if err := os.WriteFile(config, []byte("[worker]\nkey_loss_grace = \"1s\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := h.exportReadable("db", "--num-queues", "2", "--config", config)
	vm := boot(t)
	h.run("disk", "attach", "db", "--qmp", vm.QMP())
	if err := vm.WaitDisk(t.Context(), "vda"); err != nil {
		t.Fatal(err)
	}
	vm.Must(t, "echo flushed | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null")
	h.run("disk", "set", "db", "--on-key-loss", "detach") // the export that runs goes by it
	keys.mustBe(t, "while it runs", e, true)
	export := h.side("export", "db", e)
	disabled := h.disable()
	vm.Must(t, "while dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; do usleep 20000; done")
	took := time.Since(disabled)
	t.Logf("the guest's first error came %v after the key was disabled", took)
	if took < 500*time.Millisecond || took > lossDeadline+2*time.Second {
		t.Errorf("the guest's first error came after %v, with a grace of 1s", took)
	}
	if got := vm.Must(t, `dmesg | grep -ci "i/o error" || true`); got == "0\n" {
		t.Error("the guest's kernel has not seen an error")
	}
	export.ioBecomes(t, control.IOFailed, lossDeadline)
	keys.mustBe(t, "when it has failed", e, false)
	if v := h.show("db"); v.KeyState != "disabled" || v.IOState != "failed" {
		t.Errorf("the disk is shown as %+v", v)
	}
	h.run("disk", "detach", "db")
	if err := vm.WaitNoDisk(t.Context(), "vda"); err != nil {
		t.Fatal(err)
	}
	e.mustFail("the disk's key was wiped")
	h.refused("Rejected.Disabled", "disk", "attach", "db", "--qmp", vm.QMP())
	if v := h.show("db"); v.State != "available" {
		t.Errorf("the disk is shown as %+v", v)
	}
	h.enable()
	h.run("disk", "attach", "db", "--qmp", vm.QMP())
	if err := vm.WaitDisk(t.Context(), "vda"); err != nil {
		t.Fatal(err)
	}
	if got := vm.Must(t, "head -c 8 /dev/vda"); got != "flushed\n" {
		t.Errorf("the guest reads %q", got)
	}
	h.run("disk", "detach", "db")
	powerOff(t, vm)
}
