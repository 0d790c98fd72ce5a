package qmp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sealblk/internal/leaktest"
)

// start runs a program until the test ends.
func start(t *testing.T, name string, args ...string) {
	cmd := exec.Command(leaktest.Tool(t, name), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said: %s", name, &out)
		}
	})
}

// await waits for a listener at a path.
func await(t *testing.T, path string) {
	for ctx := patient(t); ctx.Err() == nil; {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatalf("nobody listens at %s", path)
}

// realQEMU starts a machine that stands still, with no guest in it.
func realQEMU(t *testing.T, args ...string) *Monitor {
	path := shortDir(t) + "/qmp"
	base := []string{"-nodefaults", "-display", "none", "-accel", "tcg", "-m", "64", "-S",
		"-chardev", "socket,id=mon,server=on,wait=off,path=" + path, "-mon", "mon,mode=control,pretty=on"}
	start(t, "qemu-system-x86_64", append(base, args...)...)
	await(t, path)
	return dial(t, path)
}

// storageDaemon serves an empty disk with two queues.
func storageDaemon(t *testing.T) string {
	dir := shortDir(t)
	if err := os.WriteFile(dir+"/img", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=n,filename="+dir+"/img",
		"--export", "type=vhost-user-blk,id=e,node-name=n,writable=on,num-queues=2,addr.type=unix,addr.path="+dir+"/s")
	return dir + "/s"
}

var (
	sharedQ35 = []string{"-machine", "q35,memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=64M,share=on"}
	sharedPC  = []string{"-machine", "pc,memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=64M,share=on"}
	rootPort  = []string{"-device", "pcie-root-port,id=rp0,chassis=1"}
)

func with(lists ...[]string) (all []string) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// picture is the state of a real machine that an attach may change.
func picture(t *testing.T, m *Monitor) string {
	t.Helper()
	var text []string
	for _, q := range []struct {
		name string
		args any
	}{{"qom-list", map[string]string{"path": pathNamed}}, {"query-chardev", nil}} {
		var list []map[string]any
		if err := m.Execute(patient(t), q.name, q.args, &list); err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			name, _ := e["name"].(string)
			label, _ := e["label"].(string)
			text = append(text, name+label)
		}
	}
	return strings.Join(text, " ")
}

func needQEMU(t *testing.T) {
	if testing.Short() {
		t.Skip("starts QEMU")
	}
	leaktest.Tool(t, "qemu-system-x86_64")
	leaktest.Tool(t, "qemu-storage-daemon")
}

func TestAttachToRealQEMU(t *testing.T) {
	needQEMU(t)
	for name, args := range map[string][]string{"rp0": with(sharedQ35, rootPort), "pci.0": sharedPC} {
		t.Run(name, func(t *testing.T) {
			sock := storageDaemon(t)
			m := realQEMU(t, args...)
			await(t, sock)
			index := 1
			a, err := Attach(patient(t), m, AttachOptions{ID: "disk0", SocketPath: sock, NumQueues: 2, QueueSize: 256, BootIndex: &index})
			if err != nil {
				t.Fatal(err)
			}
			if a.Bus != name {
				t.Errorf("plugged into %s, want %s", a.Bus, name)
			}
			var queues int
			args := map[string]string{"path": pathNamed + "/disk0", "property": "num-queues"}
			if err := m.Execute(patient(t), "qom-get", args, &queues); err != nil || queues != 2 {
				t.Errorf("got %d queues, %v", queues, err)
			}
			if _, err = Attach(patient(t), m, AttachOptions{ID: "disk0", SocketPath: sock}); !errors.Is(err, ErrInUse) {
				t.Errorf("second attach: %v", err)
			}
			// No guest runs that could let go of it.
			ctx, cancel := context.WithTimeout(patient(t), 3*time.Second)
			defer cancel()
			if _, err := Detach(ctx, m, "disk0"); !errors.Is(err, ErrGuestHolds) {
				t.Errorf("detach: %v", err)
			}
		})
	}
}

func TestRealQEMURefusals(t *testing.T) {
	needQEMU(t)
	for name, c := range map[string]struct {
		args []string
		kind error
		text string
	}{
		"memory not shared": {with([]string{"-machine", "q35"}, rootPort), ErrMemoryNotShared, `"pc.ram" has share=off; start QEMU with -object memory-backend-memfd,id=mem,size=64M,share=on -machine memory-backend=mem`},
		"memory anonymous": {with([]string{"-machine", "q35,memory-backend=mem", "-object", "memory-backend-ram,id=mem,size=64M,share=on"}, rootPort),
			ErrMemoryNotShared, "no file to share"},
		"numa node not shared": {with([]string{"-machine", "q35", "-smp", "2", "-object", "memory-backend-memfd,id=a,size=32M,share=on", "-numa", "node,memdev=a",
			"-object", "memory-backend-memfd,id=b,size=32M,share=off", "-numa", "node,memdev=b"}, rootPort), ErrMemoryNotShared, `"b" has share=off`},
		"no port":       {sharedQ35, ErrNoSlot, "no PCIe port"},
		"port in use":   {with(sharedQ35, rootPort, []string{"-device", "virtio-rng-pci,bus=rp0"}), ErrNoSlot, "occupied"},
		"port is fixed": {with(sharedQ35, []string{"-device", "pcie-root-port,id=rp0,hotplug=off"}), ErrNoSlot, "hot-plug is off"},
	} {
		t.Run(name, func(t *testing.T) {
			m := realQEMU(t, c.args...)
			before := picture(t, m)
			_, err := Attach(patient(t), m, AttachOptions{ID: "disk0", SocketPath: "/nowhere/s"})
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
			if after := picture(t, m); after != before {
				t.Errorf("before %s\nafter  %s", before, after)
			}
		})
	}
}

// QEMU halts when the back-end is gone at the very moment of device_add. It is
// freed, and what was added goes again. An unused backend that is not shared is no
// hindrance before that.
func TestRealQEMURollsBackWhenTheBackendIsDead(t *testing.T) {
	needQEMU(t)
	m := realQEMU(t, with(sharedQ35, rootPort, []string{"-object", "memory-backend-ram,id=unused,size=1M"})...)
	before := picture(t, m)
	for name, path := range map[string]string{"no socket": shortDir(t) + "/none", "stale socket": staleSocket(t)} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		_, err := Attach(ctx, m, AttachOptions{ID: "disk0", SocketPath: path, NoProbe: true})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "(rolled back)") {
			t.Errorf("%s: got %v", name, err)
		}
		if after := picture(t, m); after != before {
			t.Errorf("%s:\nbefore %s\nafter  %s", name, before, after)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s: a socket is left at its place", name)
		}
	}
	if d, err := Detach(patient(t), m, "disk0"); err != nil || d.Note == "" {
		t.Errorf("detach: got %+v, %v", d, err)
	}
}

// staleSocket is what a killed back-end leaves.
func staleSocket(t *testing.T) string {
	path := shortDir(t) + "/stale"
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	return path
}
