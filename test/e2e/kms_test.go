//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealblk/daemon/control"
	"sealblk/keymgr/kmstest"
	"sealblk/test/guest"
)

// remoteKMS is another host, whose KMS is served to this one over the network.
type remoteKMS struct {
	*host
	cmd  *exec.Cmd
	addr string
}

// newRemoteKMS makes a KMS with the key alias/tenant, serves it, and has h use it.
func newRemoteKMS(t *testing.T, h *host) *remoteKMS {
	t.Helper()
	k := &remoteKMS{host: newHost(t), addr: kmstest.FreeAddress(t)}
	credentials, config := filepath.Join(h.dir, "access-key.toml"), filepath.Join(h.dir, "config.toml")
	k.run("kms", "access-key", "create", "--principal", "disk-service", "--out", credentials)
	k.run("key", "create", "--alias", "alias/tenant")
	k.run("key", "authorize", "alias/tenant", "--principal", "disk-service", "--allow", "generate,decrypt,reencrypt")
	k.start()
	text := fmt.Sprintf("[kms.aliyun]\nendpoint = \"http://%s\"\ncredentials = %q\ntimeout = \"10s\"\n[worker]\nkey_check_interval = \"1s\"\n", k.addr, credentials)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.globals = []string{"--config", config}
	t.Cleanup(k.stop)
	return k
}

// start serves the KMS, each time at the same address.
func (k *remoteKMS) start() {
	k.t.Helper()
	k.cmd = k.command("kms", "serve", "--listen", k.addr)
	stderr, err := k.cmd.StderrPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil || !strings.HasSuffix(line, "http://"+k.addr+"\n") {
		k.t.Fatalf("kms serve: %q, %v", line, err)
	}
	go io.Copy(io.Discard, stderr)
}

// stop ends it as a crash does.
func (k *remoteKMS) stop() {
	if k.cmd != nil {
		k.cmd.Process.Signal(syscall.SIGKILL)
		k.cmd.Wait()
		k.cmd = nil
	}
}

func (h *host) becomes(t *testing.T, disk, io, key string) {
	t.Helper()
	const within = 30 * time.Second // only a hang takes longer
	for end := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		v := h.show(disk)
		if v.IOState == io && v.KeyState == key {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v disk %s is %+v, want %s and %s", within, disk, v, io, key)
		}
	}
}

// TestKMSDown: the KMS of a running VM's disk goes, and comes back. The VM does not notice;
// what needs the KMS fails in time with a clear error and leaves nothing, or waits for it.
func TestKMSDown(t *testing.T) {
	h := newHost(t)
	k := newRemoteKMS(t, h)
	for _, disk := range []string{"db", "next"} {
		h.run("disk", "create", disk, "--size", "24M", "--key", "aliyun:local/alias/tenant", "--on-key-loss", "pause")
	}
	vm := guest.ForTest(t, guest.Config{CPUs: 2, RootPorts: 2})
	h.run("disk", "attach", "db", "--qmp", vm.QMP())
	if err := vm.WaitDisk(t.Context(), "vda"); err != nil {
		t.Fatal(err)
	}
	vm.Must(t, load)
	h.becomes(t, "db", control.IORunning, "usable")

	k.stop()
	h.becomes(t, "db", control.IORunning, "unknown")
	began := time.Now()
	h.refused("KMS cannot be reached", "disk", "attach", "next", "--qmp", vm.QMP(), "--key-deadline", "2s")
	if took := time.Since(began); took < time.Second || took > 10*time.Second {
		t.Errorf("an attach that was to take 2s failed after %v", took)
	}
	vm.Must(t, goesOn+"; [ ! -e /dev/vdb ]")
	if v := h.show("next"); v.State != "available" {
		t.Errorf("the disk that was not attached is %+v", v)
	}
	left, err := filepath.Glob(filepath.Join(h.dir, "run", "next*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "next.log" {
		t.Errorf("left behind: %v, %v", left, err)
	}

	attached := make(chan error, 1)
	go func() {
		out, errs, err := h.try("disk", "attach", "next", "--qmp", vm.QMP(), "--key-deadline", "20s")
		if err != nil {
			err = fmt.Errorf("%w: %s%s", err, out, errs)
		}
		attached <- err
	}()
	time.Sleep(500 * time.Millisecond) // the attach is to find no KMS at first
	k.start()
	if err := <-attached; err != nil {
		t.Fatalf("an attach that waits for the KMS: %v", err)
	}
	if err := vm.WaitDisk(t.Context(), "vdb"); err != nil {
		t.Fatal(err)
	}
	h.becomes(t, "db", control.IORunning, "usable")

	k.run("key", "disable", "alias/tenant")
	h.becomes(t, "db", control.IOPaused, "disabled")
	k.stop()
	k.run("key", "enable", "alias/tenant")
	time.Sleep(2 * time.Second) // that nobody can know
	h.becomes(t, "db", control.IOPaused, "unknown")
	k.start()
	h.becomes(t, "db", control.IORunning, "usable")
	vm.Must(t, goesOn)
	if got := vm.Must(t, verify); strings.Count(got, "\n") != 1 {
		t.Errorf("after all that:\n%s", got)
	}
	noTrouble(t, vm)
	h.run("disk", "detach", "next")
	h.run("disk", "detach", "db")
	powerOff(t, vm)
}
