//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealblk/test/guest"
)

// bpfGuest is a machine whose kernel runs BPF LSM programs, whatever this one's does,
// with the given programs in /bin.
func bpfGuest(t *testing.T, programs map[string]string) *guest.VM {
	t.Helper()
	return guestWithLSMs(t, "landlock,bpf", programs)
}

// TestGuardInAKernelThatAllowsIt runs the guard's own tests where they can run.
func TestGuardInAKernelThatAllowsIt(t *testing.T) {
	tests := filepath.Join(t.TempDir(), "guard.test")
	build := exec.Command("go", "test", "-c", "-o", tests, "sealblk/daemon/guard")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	vm := bpfGuest(t, map[string]string{"guard.test": tests})
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute) // an emulated machine on a busy one
	defer cancel()
	r, err := vm.Run(ctx, "cd /tmp && guard.test -test.v -test.timeout 8m") // which says what it waits for
	out := r.Output
	t.Log(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"TestGuard", "TestHeld", "TestThreads", "TestOutlivesItsLoader", "TestHalfLoaded", "TestNotLoaded"} {
		if !strings.Contains(out, "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass", name)
		}
	}
	powerOff(t, vm)
}

// TestGuardedExport: with the guard on, root reads no memory of an export, nor of its
// broker; an export that runs when the guard comes is guarded too; off is off.
func TestGuardedExport(t *testing.T) {
	vm := bpfGuest(t, map[string]string{"sealblk": program})
	out := vm.Must(t, untilReady+`set -e
export SEALBLK_STATE_DIR=/tmp/state
start() { # NAME: export it, wait until it is ready
	sealblk disk create $1 --size 1M --encrypted >/dev/null
	sealblk export $1 2>/tmp/$1.log &
	until_ready /tmp/$1.log
	cat /tmp/$1.log
}
pid() { sed 's/.*"pid":\([0-9]*\).*/\1/' /tmp/state/run/$1.json; }
broker() { cat /proc/$1/task/*/children | tr -d ' '; }
readable() { # PID: its memory can be opened
	if (exec 9</proc/$1/mem) 2>/dev/null; then echo yes; else echo no; fi
}
start early
early=$(pid early)
echo before $(readable $early)
sealblk guard
start late
late=$(pid late)
echo early $(readable $early) $(readable $(broker $early))
echo late $(readable $late) $(readable $(broker $late))
sealblk guard --status
sealblk guard --status --output json
sealblk guard --off
echo off $(readable $early) $(readable $late)
sealblk guard --status
kill $early $late
wait`)
	t.Log(out)
	for _, want := range []string{"before yes", "early no no", "late no no", "off yes yes", `"loaded": true`, "not loaded"} {
		if !strings.Contains(out, want) {
			t.Errorf("the guest does not say %q", want)
		}
	}
	powerOff(t, vm)
}
