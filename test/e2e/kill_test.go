//go:build e2e

package e2e

import (
	"os"
	"strings"
	"testing"

	"sealblk/test/guest"
)

// TestVMKilled: a VM is killed while it writes. Its export lives on, serves the next
// VM, and all that the guest had synced is there.
func TestVMKilled(t *testing.T) {
	h := newHost(t)
	h.run("disk", "create", "db", "--size", "64M", "--encrypted")
	e := h.export("db", "--num-queues", "2")
	vm := boot(t, cold(e))
	vm.Must(t, `set -e
mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt
echo precious >/mnt/synced && sync
(while :; do dd if=/dev/urandom of=/mnt/busy bs=256k count=64 conv=fsync 2>/dev/null; done) &
(while :; do echo x >>/mnt/log; sync; done) &
sleep 2`)
	vm.Kill()
	if !e.alive() {
		t.Fatal("the export died with its VM")
	}
	vm = boot(t, cold(e))
	got := vm.Must(t, "e2fsck -p /dev/vda >/tmp/fsck; [ $? -le 1 ] || cat /tmp/fsck; e2fsck -fn /dev/vda >/dev/null 2>&1 && mount /dev/vda /mnt && cat /mnt/synced")
	if got != "precious\n" {
		t.Errorf("got %q", got)
	}
	powerOff(t, vm)
	e.stop()
}

// TestDetachWhileTheGuestUsesTheDisk: the guest may be in the middle of I/O; the disk
// goes and comes back with what was written.
func TestDetachWhileTheGuestUsesTheDisk(t *testing.T) {
	h := newHost(t)
	h.run("disk", "create", "db", "--size", "16M", "--encrypted")
	vm := boot(t)
	for i := range 3 {
		h.run("disk", "attach", "db", "--qmp", vm.QMP())
		if err := vm.WaitDisk(t.Context(), "vda"); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if got := vm.Must(t, "head -c 8 /dev/vda"); got != "written\n" {
				t.Fatalf("round %d: read %q", i, got)
			}
		}
		vm.Must(t, "echo written | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null; (while dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null; do :; done) &")
		h.run("disk", "detach", "db")
		if err := vm.WaitNoDisk(t.Context(), "vda"); err != nil {
			t.Fatal(err)
		}
	}
	powerOff(t, vm)
}

// TestAttachTakesBackWhatItDid: a VM that cannot take the disk is told why, and the
// export that was started for it is gone.
func TestAttachTakesBackWhatItDid(t *testing.T) {
	h := newHost(t)
	h.run("disk", "create", "db", "--size", "8M", "--encrypted")
	private := guest.ForTest(t, guest.Config{RootPorts: 1, PrivateMemory: true})
	h.refused("share=on", "disk", "attach", "db", "--qmp", private.QMP())
	noSlot := guest.ForTest(t, guest.Config{})
	h.refused("pcie-root-port", "disk", "attach", "db", "--qmp", noSlot.QMP())
	h.refused("no/such/socket", "disk", "attach", "db", "--qmp", "/no/such/socket")
	if v := h.show("db"); v.State != "available" || v.SocketPath != "" {
		t.Errorf("after refused attaches the disk is %+v", v)
	}
	entries, err := os.ReadDir(h.dir + "/run")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range entries {
		if !strings.HasSuffix(f.Name(), ".log") {
			t.Errorf("left behind: run/%s", f.Name())
		}
	}
}

// TestNextVMAfterAKilledOne: detach forgets a VM that has gone, attach moves on to
// the next.
func TestNextVMAfterAKilledOne(t *testing.T) {
	h := newHost(t)
	h.run("disk", "create", "db", "--size", "8M", "--encrypted")
	first := boot(t)
	h.run("disk", "attach", "db", "--qmp", first.QMP())
	first.Kill()
	second := boot(t)
	h.run("disk", "attach", "db", "--qmp", second.QMP())
	if err := second.WaitDisk(t.Context(), "vda"); err != nil {
		t.Fatal(err)
	}
	second.Kill()
	h.run("disk", "detach", "db")
	if got := h.show("db").State; got != "available" {
		t.Errorf("the disk is %q", got)
	}
}
