//go:build e2e

package guest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/qmp"
)

// storageDaemon serves an empty disk, with a back-end that is known to work.
func storageDaemon(t *testing.T, size int64) (socket string) {
	dir, err := os.MkdirTemp("/tmp", "qsd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	img, socket := filepath.Join(dir, "img"), filepath.Join(dir, "s")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, size); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(leaktest.Tool(t, "qemu-storage-daemon"),
		"--blockdev", "driver=file,node-name=n,filename="+img,
		"--export", "type=vhost-user-blk,id=e,node-name=n,writable=on,num-queues=2,addr.type=unix,addr.path="+socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return socket
		}
		if time.Now().After(deadline) {
			t.Fatal("qemu-storage-daemon does not listen")
		}
	}
}

const useDisk = `set -e
mkfs.ext4 -q /dev/$D && mount /dev/$D /mnt
dd if=/dev/urandom of=/mnt/file bs=1M count=8 2>/dev/null
before=$(sha256sum </mnt/file)
umount /mnt && e2fsck -fn /dev/$D >/tmp/fsck 2>&1
mount -o ro /dev/$D /mnt && after=$(sha256sum </mnt/file) && umount /mnt
[ "$before" = "$after" ] && echo same`

func TestDisksInAGuest(t *testing.T) {
	cold, hot := storageDaemon(t, 64<<20), storageDaemon(t, 64<<20)
	vm := ForTest(t, Config{CPUs: 2, RootPorts: 1, Disks: []Disk{{ID: "cold", Socket: cold, Queues: 2}}})
	ctx := t.Context()
	t.Run("cold-plugged", func(t *testing.T) {
		if got := vm.Must(t, "D=vda; "+useDisk); got != "same\n" {
			t.Errorf("got %q", got)
		}
		if got := vm.Must(t, "ls /sys/block/vda/mq | wc -l"); got != "2\n" {
			t.Errorf("%s queues", got)
		}
	})
	t.Run("hot-plugged", func(t *testing.T) {
		mon, err := qmp.Dial(ctx, vm.QMP())
		if err != nil {
			t.Fatal(err)
		}
		defer mon.Disconnect()
		for range 2 { // the slot is free again
			if _, err := qmp.Attach(ctx, mon, qmp.AttachOptions{ID: "hot", SocketPath: hot, NumQueues: 2}); err != nil {
				t.Fatal(err)
			}
			if err := vm.WaitDisk(ctx, "vdb"); err != nil {
				t.Fatal(err)
			}
			if got := vm.Must(t, "D=vdb; "+useDisk); got != "same\n" {
				t.Errorf("got %q", got)
			}
			d, err := qmp.Detach(ctx, mon, "hot")
			if err != nil || !d.DeviceRemoved || !d.ChardevRemoved {
				t.Fatalf("detach: %+v, %v", d, err)
			}
			if err := vm.WaitNoDisk(ctx, "vdb"); err != nil {
				t.Fatal(err)
			}
		}
		_, err = qmp.Detach(ctx, mon, "cold")
		if err == nil || !strings.Contains(err.Error(), "power the machine off") {
			t.Errorf("detach of a cold-plugged disk: %v", err)
		}
	})
	if err := vm.PowerOff(ctx); err != nil {
		t.Error(err)
	}
}

// TestKernelPatchesItself: a guest whose scheduler is patched again and again, while its
// other processor runs it, goes on. Only one without disks is sure to.
func TestKernelPatchesItself(t *testing.T) {
	vm := ForTest(t, Config{CPUs: 2})
	out := vm.Must(t, `yes | cat >/dev/null & switching=$!
for i in $(seq 300); do
	echo 1 >/proc/sys/kernel/sched_schedstats || exit
	echo 0 >/proc/sys/kernel/sched_schedstats || exit
done
kill $switching
echo patched`)
	if out != "patched\n" {
		t.Errorf("got %q", out)
	}
}

func TestCommands(t *testing.T) {
	vm := ForTest(t, Config{Options: Options{
		Programs: []string{"cmp"},
		Files:    map[string][]byte{"bin/hello": []byte("#!/bin/sh\necho hello $1\n")},
	}})
	ctx := t.Context()
	t.Run("status and output", func(t *testing.T) {
		r, err := vm.Run(ctx, "echo out; echo err >&2; exit 7")
		var exit *ExitError
		if !errors.As(err, &exit) || r != (Result{"out\nerr\n", 7}) || exit.Result != r {
			t.Errorf("got %+v, %v", r, err)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		out := vm.Must(t, "head -c 3000000 /dev/urandom >/tmp/x; cat /tmp/x")
		sum := vm.Must(t, "sha256sum </tmp/x | cut -c-64")
		cmd := exec.Command("sha256sum")
		cmd.Stdin = strings.NewReader(out)
		if want, err := cmd.Output(); err != nil || !bytes.HasPrefix(want, []byte(strings.TrimSpace(sum))) || len(out) != 3000000 {
			t.Errorf("%d bytes differ: guest %s, host %s, %v", len(out), sum, want, err)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for _, word := range strings.Fields("a b c d e f g h") {
			wg.Go(func() {
				r, err := vm.Run(ctx, "usleep 10000; echo "+word)
				if err != nil || r.Output != word+"\n" {
					t.Errorf("%s: got %+v, %v", word, r, err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("what was added", func(t *testing.T) {
		if got := vm.Must(t, "hello you; /bin/cmp --version | head -n 1"); !strings.HasPrefix(got, "hello you\ncmp (GNU") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		if _, err := vm.Run(ctx, "sleep 1234"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if err := vm.WaitFor(t.Context(), "! pgrep -f 'sleep 123[4]'"); err != nil {
			t.Errorf("the script lives on: %v", err)
		}
	})
	t.Run("the guest goes", func(t *testing.T) {
		done := make(chan error, 1)
		go func() { _, err := vm.Run(ctx, "sleep 1234"); done <- err }()
		vm.Must(t, "echo 'last words' >/dev/console")
		vm.Kill()
		if err := <-done; !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "last words") {
			t.Errorf("got %v", err)
		}
		if err := vm.PowerOff(ctx); !errors.Is(err, ErrGone) {
			t.Errorf("power off: got %v", err)
		}
		if !strings.Contains(vm.Console(), "last words") {
			t.Errorf("console: %q", vm.Console())
		}
	})
}

func TestBootSaysWhyItFails(t *testing.T) {
	leaktest.Tool(t, "qemu-system-x86_64")
	_, err := Boot(t.Context(), Config{Args: []string{"-device", "no-such-device"}})
	if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "'no-such-device' is not a valid device model name") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err = Boot(ctx, Config{CPUs: 2, Args: []string{"-S"}}) // its processors never start
	var failed *BootError
	if !errors.As(err, &failed) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"CPU#0", "CPU#1", "EIP=0000fff0"} { // the reset vector
		if !strings.Contains(failed.CPUs, want) {
			t.Errorf("no %s in:\n%s", want, failed.CPUs)
		}
	}
}
