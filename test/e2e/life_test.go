//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/internal/leaktest"
	"sealblk/test/independent"
)

const marker = "MARKER-the-plaintext-of-a-secret-document-MARKER"

// TestDiskOutlivesItsGuests: a file system made by one guest is read by the next,
// which got the disk hot-plugged, and on the host by software that is not ours.
func TestDiskOutlivesItsGuests(t *testing.T) {
	for _, sector := range []string{"512", "4096"} {
		t.Run(sector, func(t *testing.T) {
			leaktest.Tool(t, "cryptsetup")
			h := newHost(t)
			h.run("disk", "create", "db", "--size", "48M", "--encrypted", "--sector-size", sector)
			sums := writeInFirstGuest(t, h)
			readInSecondGuest(t, h, sums)
			readOnHost(t, h)
		})
	}
}

func writeInFirstGuest(t *testing.T, h *host) (sums string) {
	e := h.export("db", "--num-queues", "2")
	vm := boot(t, cold(e))
	if got := vm.Must(t, "ls /sys/block/vda/mq | wc -l"); got != "2\n" {
		t.Errorf("the guest has %s queues, want 2", strings.TrimSpace(got))
	}
	if got := strings.TrimSpace(vm.Must(t, "cat /sys/block/vda/serial")); got != h.show("db").Serial {
		t.Errorf("the guest sees serial %q, want %q", got, h.show("db").Serial)
	}
	sums = vm.Must(t, `set -e
mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt
for i in 1 2 3 4 5 6 7 8; do echo "`+marker+` $i"; done >/mnt/marked
dd if=/dev/urandom of=/mnt/noise bs=64k count=160 2>/dev/null
cd /mnt && sha256sum marked noise && cd / && umount /mnt`)
	powerOff(t, vm)
	e.stop()
	return sums
}

func readInSecondGuest(t *testing.T, h *host, sums string) {
	vm := boot(t)
	h.run("disk", "attach", "db", "--qmp", vm.QMP())
	if err := vm.WaitDisk(t.Context(), "vda"); err != nil {
		t.Fatal(err)
	}
	if got := h.show("db").State; got != "in-use" {
		t.Errorf("an attached disk is %q", got)
	}
	h.refused("attached already", "disk", "attach", "db", "--qmp", vm.QMP())
	h.refused("in use", "disk", "delete", "db")
	got := vm.Must(t, "mount -o ro /dev/vda /mnt && cd /mnt && sha256sum marked noise && cd / && umount /mnt")
	if got != sums {
		t.Errorf("the second guest reads\n%s, the first wrote\n%s", got, sums)
	}
	h.run("disk", "detach", "db")
	if err := vm.WaitNoDisk(t.Context(), "vda"); err != nil {
		t.Fatal(err)
	}
	if got := h.show("db").State; got != "available" {
		t.Errorf("a detached disk is %q", got)
	}
	h.refused("not attached", "disk", "detach", "db")
	powerOff(t, vm)
}

// readOnHost opens the backing file with other software.
func readOnHost(t *testing.T, h *host) {
	path := h.show("db").Path
	img, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(img, []byte(marker)) || bytes.Contains(img, []byte(marker[7:30])) {
		t.Error("plaintext in the backing file")
	}
	plain, layout := decrypt(t, h, "db")
	if !bytes.Contains(plain, []byte(marker+" 8")) {
		t.Error("other software with the exported key does not find what the guest wrote")
	}
	if layout.Offset != 16<<20 || layout.Size != 48<<20 {
		t.Errorf("cryptsetup sees %+v", layout)
	}
	// The whole file system, by other software from end to end.
	raw := filepath.Join(h.dir, "plain.raw")
	zeroHoles(plain, img[layout.Offset:], layout.SectorSize)
	if err := os.WriteFile(raw, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("e2fsck", "-fn", raw).CombinedOutput(); err != nil {
		t.Errorf("file system in the decrypted disk: %v\n%s", err, out)
	}
}

// decrypt reads a disk with cryptsetup and golang.org/x/crypto/xts, and the key that
// sealblk exports.
func decrypt(t *testing.T, h *host, disk string) ([]byte, independent.Layout) {
	t.Helper()
	path, keyFile := h.show(disk).Path, filepath.Join(h.dir, disk+".key")
	h.run("disk", "export-key", disk, "--out", keyFile, "--yes-i-know")
	defer os.Remove(keyFile)
	if err := independent.KeyOpens(path, keyFile); err != nil {
		t.Error(err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	layout, err := independent.Header(path)
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	if err := independent.Decrypt(&plain, path, key, layout); err != nil {
		t.Fatal(err)
	}
	return plain.Bytes(), layout
}

// zeroHoles undoes what other software makes of units that were never written: to a
// guest they are zeros.
func zeroHoles(plain, stored []byte, unit int) {
	zero := make([]byte, unit)
	for off := 0; off < len(plain); off += unit {
		if bytes.Equal(stored[off:off+unit], zero) {
			clear(plain[off : off+unit])
		}
	}
}

// TestWholeDiskInAGuest: a disk that a guest filled is, byte for byte, what other
// software decrypts.
func TestWholeDiskInAGuest(t *testing.T) {
	for _, engine := range []string{"uring", "threads"} {
		t.Run(engine, func(t *testing.T) {
			leaktest.Tool(t, "cryptsetup")
			h := newHost(t)
			h.run("disk", "create", "full", "--size", "24M", "--encrypted")
			e := h.export("full", "--num-queues", "2", "--io-engine", engine)
			vm := boot(t, cold(e))
			got := vm.Must(t, "dd if=/dev/urandom of=/dev/vda bs=1M count=24 2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum </dev/vda | cut -c-64")
			powerOff(t, vm)
			e.stop()
			plain, _ := decrypt(t, h, "full")
			sum := sha256.Sum256(plain)
			if want := hex.EncodeToString(sum[:]); strings.TrimSpace(got) != want {
				t.Errorf("the guest read %s, other software %s", got, want)
			}
		})
	}
}
