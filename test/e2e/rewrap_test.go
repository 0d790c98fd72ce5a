//go:build e2e

package e2e

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sealblk/daemon/control"
)

// TestRewrapUnderGuest: the data key of a disk is wrapped anew again and again, and most
// of the commands are killed, while a guest reads and writes without a pause. The guest
// notices nothing; in the end the disk depends on the new key, and on the old one no more;
// paused and unlocked again it opens by the new wrapping.
func TestRewrapUnderGuest(t *testing.T) {
	h := newHost(t)
	h.keyed("24M", "pause")
	h.run("key", "create", "--alias", "alias/second")
	h.run("key", "authorize", "alias/second", "--principal", "disk-service", "--allow", "generate,decrypt,reencrypt")
	e := h.export("db", "--num-queues", "2")
	vm := boot(t, cold(e))
	vm.Must(t, load)
	export := h.side("export", "db", e)
	rng, killed := rand.New(rand.NewPCG(1, 1)), 0
	for i := range 60 {
		cmd := h.command("disk", "rewrap", "db", "--key", []string{"alias/second", "alias/tenant"}[i%2])
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rng.IntN(60_000)) * time.Microsecond) // the moment is to be any
		cmd.Process.Kill()
		if cmd.Wait() != nil {
			killed++
		}
	}
	t.Logf("%d of 60 re-wraps were killed", killed)
	h.run("disk", "rewrap", "db", "--key", "alias/second")
	h.run("disk", "check", "db")
	vm.Must(t, goesOn)

	h.disable() // the key that it was made with
	vm.Must(t, goesOn)
	if s := export.status(t); s.IOState != control.IORunning {
		t.Errorf("the key from before counts still: %+v", s)
	}
	h.run("key", "disable", "alias/second")
	export.ioBecomes(t, control.IOPaused, patience)
	h.run("key", "enable", "alias/second")
	vm.Must(t, goesOn)
	if got := vm.Must(t, verify); strings.Count(got, "\n") != 1 {
		t.Errorf("after the re-wraps:\n%s", got)
	}
	noTrouble(t, vm)
	powerOff(t, vm)
	e.stop()
	h.run("disk", "check", "db")
}
