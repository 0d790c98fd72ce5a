//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealblk/daemon/control"
	"sealblk/test/guest"
)

// TestExportKilledUnderLoad: the process that serves a disk is killed 20 times at random
// moments while the guest writes and verifies, and started again by nobody in particular.
// The guest sees a pause, and neither an error nor a wrong byte.
func TestExportKilledUnderLoad(t *testing.T) {
	for _, engine := range []string{"uring", "threads"} {
		t.Run(engine, func(t *testing.T) { killUnderLoad(t, engine) })
	}
}

func killUnderLoad(t *testing.T, engine string) {
	const kills = 20
	seed := rand.Uint64N(1 << 20)
	t.Logf("seed %d", seed)
	h := newHost(t)
	h.run("disk", "create", "db", "--size", "24M", "--encrypted")
	export := func() *export { return h.export("db", "--num-queues", "2", "--io-engine", engine) }
	e := export()
	vm := guest.ForTest(t, guest.Config{
		CPUs: 2, Disks: []guest.Disk{cold(e)},
		Options: guest.Options{Files: map[string][]byte{"bin/verify": buildVerifier(t)}},
	})
	vm.Must(t, fmt.Sprintf("touch /tmp/go; verify /dev/vda /tmp/go %d >/tmp/result 2>&1 &", seed))
	for range kills {
		h.waitServing(t, "db")
		time.Sleep(rand.N(300 * time.Millisecond)) // a random moment
		e.kill()
		e = export()
	}
	h.waitServing(t, "db")
	got := vm.Must(t, `rm /tmp/go; until grep -q writes /tmp/result; do sleep 1; done; cat /tmp/result`)
	t.Logf("the guest: %s", strings.TrimSpace(got))
	var writes, reads, flushes int
	if _, err := fmt.Sscanf(got, "writes %d reads %d flushes %d", &writes, &reads, &flushes); err != nil || strings.Contains(got, "verify:") {
		t.Fatalf("the guest found:\n%s", got)
	}
	if writes < 10*kills {
		t.Errorf("only %d writes", writes)
	}
	if log := vm.Must(t, "dmesg"); strings.Contains(log, "I/O error") {
		t.Errorf("errors in the guest's log:\n%s", log)
	}
	powerOff(t, vm)
	e.stop()
}

// waitServing waits until an export has written something for its guest.
func (h *host) waitServing(t *testing.T, disk string) {
	t.Helper()
	client := control.Dial(filepath.Join(h.dir, "run", disk+".ctl"))
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if s, err := client.Status(t.Context()); err == nil && s.Stats.Writes > 0 {
			return
		}
	}
	t.Fatalf("the export of %s serves nothing", disk)
}

// buildVerifier builds the program that tests a disk from within a guest.
func buildVerifier(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "verify")
	build := exec.Command("go", "build", "-trimpath", "-o", path, "sealblk/test/verify")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build verifier: %v\n%s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
