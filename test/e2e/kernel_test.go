//go:build e2e

package e2e

import (
	"os"
	"strings"
	"testing"

	"sealblk/test/guest"
)

// untilReady is a shell function that waits until an export has said in its log that it
// is ready, for a minute.
const untilReady = `until_ready() { # LOG
	for i in $(seq 600); do
		if grep -q ready $1; then return 0; fi
		usleep 100000
	done
	echo "the export is not ready after a minute; its log $1:"
	cat $1
	return 1
}
`

// guestWithLSMs is a machine whose kernel runs these security modules, with the given
// programs in /bin.
func guestWithLSMs(t *testing.T, lsms string, programs map[string]string) *guest.VM {
	t.Helper()
	files := make(map[string][]byte)
	for name, path := range programs {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files["/bin/"+name] = data
	}
	vm := guest.ForTest(t, guest.Config{
		CPUs: 2, MemoryMiB: 768,
		Options:    guest.Options{Files: files},
		KernelArgs: "lsm=" + lsms,
	})
	vm.Must(t, "mount -t securityfs none /sys/kernel/security")
	return vm
}

// TestKernelThatLacksLayers: an export on a kernel without Landlock and BPF LSM says so,
// has the rest, and serves.
func TestKernelThatLacksLayers(t *testing.T) {
	vm := guestWithLSMs(t, "yama", map[string]string{"sealblk": program})
	out := vm.Must(t, untilReady+`set -e
export SEALBLK_STATE_DIR=/tmp/state
sealblk disk create db --size 1M --encrypted >/dev/null
sealblk export db 2>/tmp/log &
until_ready /tmp/log
cat /tmp/log
grep -E '^(Uid|CapBnd|NoNewPrivs|Seccomp):' /proc/$!/status
sealblk guard || echo guard refused
sealblk doctor | grep -E 'landlock|key guard'
kill $!
wait $! && echo ended well`)
	t.Log(out)
	for _, want := range []string{
		"warning: sandbox without landlock", "Uid:\t65534\t", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2",
		"guard refused", "ended well",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the guest does not say %q", want)
		}
	}
	powerOff(t, vm)
}
