//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"sealblk/internal/leaktest"
)

// TestKeyIsNowhere: while a guest uses a disk, its data key is in no file, log,
// argument list or environment, and not in a core dump of the process that serves it,
// nor of its broker, which had it. The KMS's root key never was in the former.
func TestKeyIsNowhere(t *testing.T) {
	leaktest.Tool(t, "gcore")
	h := newHost(t)
	h.run("disk", "create", "db", "--size", "16M", "--encrypted")
	disk := h.show("db")
	e := h.export("db", "--num-queues", "2", "--log-level", "debug")
	vm := boot(t, cold(e))
	vm.Must(t, "dd if=/dev/urandom of=/dev/vda bs=1M count=16 2>/dev/null; sync; dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null")

	pid := e.cmd.Process.Pid
	keyFile := filepath.Join(t.TempDir(), "key")
	h.run("disk", "export-key", "db", "--out", keyFile, "--yes-i-know")
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	core := dump(t, pid)
	if !bytes.Contains(core, []byte(disk.ID)) {
		t.Fatal("the core dump does not even hold the disk's id: it proves nothing")
	}
	mustNotHold(t, "core dump", core, key)
	root, err := os.ReadFile(filepath.Join(h.dir, "kms", "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	mustNotHold(t, "core dump", core, root)
	core = dump(t, brokerOf(t, pid))
	if !bytes.Contains(core, []byte("disk-service")) {
		t.Fatal("the core dump of the broker does not even hold its principal: it proves nothing")
	}
	mustNotHold(t, "core dump of the broker", core, key)
	for _, name := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		mustNotHold(t, name, text, key)
	}
	mustNotHold(t, "log", e.log.Bytes(), key)
	powerOff(t, vm)
	e.stop()
	searchFiles(t, h.dir, key)
}

// brokerOf is the one child of an export.
func brokerOf(t *testing.T, pid int) (child int) {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil {
			fmt.Sscan(string(text), &child)
		}
	}
	if child == 0 {
		t.Fatalf("process %d has no child", pid)
	}
	return child
}

// dump makes a core dump of a process, as a debugger run by root does.
func dump(t *testing.T, pid int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "core")
	out, err := exec.Command("gcore", "-o", path, fmt.Sprint(pid)).CombinedOutput()
	if err != nil {
		t.Fatalf("gcore: %v\n%s", err, out)
	}
	core, err := os.ReadFile(fmt.Sprintf("%s.%d", path, pid))
	if err != nil {
		t.Fatal(err)
	}
	return core
}

// mustNotHold looks for the key and for each quarter of it: half of one of its two
// AES keys is more than nobody may learn.
func mustNotHold(t *testing.T, where string, data, key []byte) {
	t.Helper()
	for i := 0; i < len(key); i += 16 {
		if at := bytes.Index(data, key[i:i+16]); at >= 0 {
			t.Errorf("%s holds bytes %d to %d of the data key, at %#x", where, i, i+16, at)
		}
	}
}

func searchFiles(t *testing.T, dir string, key []byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			mustNotHold(t, path, data, key)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
