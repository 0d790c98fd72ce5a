//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/test/guest"
)

// allocated is the space that a file takes on the host, in bytes.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// extents is what the host's file system may need to note what a file lacks: ext4, a block
// when the file has more than four extents, which fragmented space decides.
const extents = 16 << 10

// TestDiscardInAGuest: what a guest discards reads as zeros and gives its space back to
// the host; what it deletes from a file system does so with fstrim.
func TestDiscardInAGuest(t *testing.T) {
	for _, kind := range [][]string{{"--encrypted"}, {"--encrypted", "--sector-size", "4096"}, nil} {
		t.Run(strings.Join(append(kind, "disk"), " "), func(t *testing.T) {
			const size = 64 << 20
			h := newHost(t)
			h.run(append([]string{"disk", "create", "db", "--size", "64M"}, kind...)...)
			path := h.show("db").Path
			e := h.export("db", "--num-queues", "2")
			vm := boot(t, cold(e))
			vm.Must(t, "tr '\\0' x </dev/zero | dd of=/dev/vda bs=1M count=64 iflag=fullblock 2>/dev/null; sync")
			full := allocated(t, path)
			if full < size {
				t.Fatalf("%d bytes are allocated, %d were written", full, int64(size))
			}
			got := vm.Must(t, `blkdiscard -o 8388608 -l 33554432 /dev/vda && echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda bs=1M skip=8 count=32 2>/dev/null | tr -d '\0' | wc -c
dd if=/dev/vda bs=1M count=8 2>/dev/null | tr -d x | wc -c
dd if=/dev/vda bs=1M skip=40 2>/dev/null | tr -d x | wc -c`)
			if got != "0\n0\n0\n" {
				t.Errorf("bytes that are not zeros in what was discarded, and not data beside it: %q", got)
			}
			if now := allocated(t, path); now > full-(32<<20)+extents {
				t.Errorf("%d bytes are allocated after a discard of 32 MiB, before %d", now, full)
			}

			vm.Must(t, "mkfs.ext4 -q -F /dev/vda && mount /dev/vda /mnt && dd if=/dev/urandom of=/mnt/file bs=1M count=40 2>/dev/null; sync")
			full = allocated(t, path)
			vm.Must(t, "rm /mnt/file && sync && fstrim /mnt && umount /mnt")
			if now := allocated(t, path); now > full-(36<<20) {
				t.Errorf("%d bytes are allocated after fstrim, with the file of 40 MiB %d", now, full)
			}
			powerOff(t, vm)
			e.stop()
		})
	}
}

// erasers erase a range in a guest: a discard, zeros that must be stored, and zeros that
// may be a hole.
var erasers = []string{discarder, "/bin/blkdiscard --zeroout", "/bin/fallocate --punch-hole"}

const discarder = "/bin/blkdiscard"

// TestErasedDiskIsExact: a disk with a file system in which many ranges were discarded and
// zeroed at random is, for other software that takes holes for zeros, the disk that the
// guest saw; zeroed ranges need no such indulgence, unless the disk says so.
func TestErasedDiskIsExact(t *testing.T) {
	for _, zeroes := range []string{"write", "unmap"} {
		t.Run("zeroes "+zeroes, func(t *testing.T) {
			leaktest.Tool(t, "cryptsetup")
			h := newHost(t)
			h.run("disk", "create", "db", "--size", "64M", "--encrypted")
			h.run("disk", "set", "db", "--zeroes", zeroes)
			e := h.export("db", "--num-queues", "2")
			vm := guest.ForTest(t, guest.Config{CPUs: 2, Disks: []guest.Disk{cold(e)}, Options: guest.Options{Programs: []string{"blkdiscard", "fallocate"}}})
			// A file system in the first half, noise behind it.
			vm.Must(t, `set -e
mkfs.ext4 -q -F /dev/vda 32M && mount /dev/vda /mnt
for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/mnt/$i bs=64k count=30 2>/dev/null; done
sync; rm /mnt/2 /mnt/5 /mnt/7; sync; fstrim /mnt; umount /mnt
dd if=/dev/urandom of=/dev/vda bs=1M seek=32 count=32 2>/dev/null; sync`)
			rng := rand.New(rand.NewPCG(4, 5))
			var zeroed [][2]int
			for range 4 {
				var script strings.Builder
				for range 16 {
					const first, sectors = 32 << 11, 32 << 11
					n := 1 + rng.IntN(300)
					at := first + rng.IntN(sectors-n)
					erase := rng.IntN(len(erasers))
					if zeroed = append(zeroed, [2]int{at, n}); erasers[erase] == discarder {
						zeroed[len(zeroed)-1][1] = -n
					}
					fmt.Fprintf(&script, "%s -o %d -l %d /dev/vda || exit\n", erasers[erase], at*512, n*512)
				}
				vm.Must(t, script.String())
			}
			sum := vm.Must(t, "sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum </dev/vda | cut -c-64")
			powerOff(t, vm)
			e.stop()

			img, err := os.ReadFile(h.show("db").Path)
			if err != nil {
				t.Fatal(err)
			}
			plain, layout := decrypt(t, h, "db")
			if zeroes == "write" {
				wantExactZeros(t, plain, zeroed)
			}
			zeroHoles(plain, img[layout.Offset:], layout.SectorSize)
			raw := filepath.Join(h.dir, "plain.raw")
			if err := os.WriteFile(raw, plain, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("e2fsck", "-fn", raw).CombinedOutput(); err != nil {
				t.Errorf("file system in the decrypted disk: %v\n%s", err, out)
			}
			out, err := exec.Command("sha256sum", raw).Output()
			if err != nil || !strings.HasPrefix(string(out), strings.TrimSpace(sum)) {
				t.Errorf("the guest read %s, other software %s (%v)", strings.TrimSpace(sum), out, err)
			}
		})
	}
}

// wantExactZeros checks the ranges that were zeroed (positive length) and not discarded
// after that.
func wantExactZeros(t *testing.T, plain []byte, ranges [][2]int) {
	t.Helper()
	exact := map[int]bool{}
	for _, r := range ranges {
		for i := range max(r[1], -r[1]) {
			exact[r[0]+i] = r[1] > 0
		}
	}
	zero, n := make([]byte, 512), 0
	for sector, is := range exact {
		if is {
			n++
			if !bytes.Equal(plain[sector*512:][:512], zero) {
				t.Fatalf("sector %d was zeroed and is not zeros to other software", sector)
			}
		}
	}
	if n < 1000 {
		t.Errorf("only %d sectors were looked at", n)
	}
}

// resized makes a disk larger and returns how long its guest takes to see that.
func resized(t *testing.T, h *host, vm *guest.VM, from, to int) time.Duration {
	t.Helper()
	seen := make(chan string, 1)
	go func() {
		r, _ := vm.Run(t.Context(), fmt.Sprintf("echo watching >/tmp/watch; while [ $(cat /sys/block/vda/size) = %d ]; do usleep 20000; done; cat /sys/block/vda/size", from<<11))
		seen <- strings.TrimSpace(r.Output)
	}()
	vm.Must(t, "while ! [ -e /tmp/watch ]; do usleep 10000; done; rm /tmp/watch")
	h.run("disk", "resize", "db", fmt.Sprintf("%dM", to))
	since := time.Now()
	if got := <-seen; got != strconv.Itoa(to<<11) {
		t.Fatalf("the guest sees %s sectors", got)
	}
	return time.Since(since)
}

// TestResizeInAGuest: a guest sees the new size within a second, without a restart, and
// its file system grows into it.
func TestResizeInAGuest(t *testing.T) {
	for _, kind := range [][]string{{"--encrypted"}, {"--encrypted", "--sector-size", "4096"}, nil} {
		t.Run(strings.Join(append(kind, "disk"), " "), func(t *testing.T) {
			h := newHost(t)
			h.run(append([]string{"disk", "create", "db", "--size", "32M"}, kind...)...)
			e := h.export("db", "--num-queues", "2")
			vm := guest.ForTest(t, guest.Config{CPUs: 2, Disks: []guest.Disk{cold(e)}, Options: guest.Options{Programs: []string{"resize2fs"}}})
			vm.Must(t, "mkfs.ext4 -q -F /dev/vda && mount /dev/vda /mnt && dd if=/dev/urandom of=/mnt/old bs=1M count=8 2>/dev/null; sync; sha256sum /mnt/old >/tmp/sum")

			// A guest without KVM may itself be late, once.
			took := min(resized(t, h, vm, 32, 96), resized(t, h, vm, 96, 112), resized(t, h, vm, 112, 128))
			if took > time.Second {
				t.Errorf("the guest saw the new size after %v at best", took)
			}
			vm.Must(t, `set -e
resize2fs /dev/vda >/dev/null 2>&1
dd if=/dev/urandom of=/mnt/new bs=1M count=60 2>/dev/null
sync; sha256sum -c /tmp/sum >/dev/null; cd /mnt; sha256sum new >/tmp/new; cd /; umount /mnt
echo 3 >/proc/sys/vm/drop_caches; e2fsck -fn /dev/vda >/dev/null 2>&1
mount /dev/vda /mnt; cd /mnt; sha256sum -c /tmp/new >/dev/null; cd /; umount /mnt`)
			h.refused("can only grow", "disk", "resize", "db", "64M")
			powerOff(t, vm)
			e.stop()
			h.run("disk", "check", "db")
			e = h.export("db")
			vm = boot(t, cold(e))
			if got := strings.TrimSpace(vm.Must(t, "cat /sys/block/vda/size; mount /dev/vda /mnt; umount /mnt")); got != strconv.Itoa(128<<11) {
				t.Errorf("the next guest sees %s sectors", got)
			}
			powerOff(t, vm)
			e.stop()
		})
	}
}
