//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/test/guest"
)

// program is the sealblk under test.
var program string

func TestMain(m *testing.M) {
	if os.Getenv(readableEnv) != "" {
		panic(execReadable())
	}
	dir, err := os.MkdirTemp("", "sealblk-e2e")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "sealblk")
	build := exec.Command("go", "build", "-o", program, "sealblk/cmd/sealblk")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	defer os.RemoveAll(dir)
	leaktest.Main(m)
}

// host is a machine with sealblk: a state directory of its own.
type host struct {
	t       *testing.T
	dir     string
	globals []string // arguments of each command
}

func newHost(t *testing.T) *host {
	t.Helper()
	if testing.Short() {
		t.Skip("boots guests")
	}
	// Socket paths must be short: t.TempDir has the test's name in it.
	dir, err := os.MkdirTemp("/tmp", "seal")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &host{t: t, dir: dir}
}

func (h *host) command(args ...string) *exec.Cmd {
	return exec.Command(program, slices.Concat([]string{"--state-dir", h.dir}, h.globals, args)...)
}

// run runs sealblk and returns what it printed.
func (h *host) run(args ...string) string {
	h.t.Helper()
	out, errs, err := h.try(args...)
	if err != nil {
		h.t.Fatalf("sealblk %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return out
}

// refused runs sealblk, which must fail with one line that says why.
func (h *host) refused(why string, args ...string) {
	h.t.Helper()
	_, errs, err := h.try(args...)
	if err == nil {
		h.t.Fatalf("sealblk %s: succeeded", strings.Join(args, " "))
	}
	if strings.Count(errs, "\n") != 1 || !strings.Contains(errs, why) {
		h.t.Fatalf("sealblk %s: want one line with %q, got:\n%s", strings.Join(args, " "), why, errs)
	}
}

func (h *host) try(args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := h.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// view is a disk as the command line shows it.
type view struct {
	ID         string `json:"id"`
	Path       string `json:"path"`
	Serial     string `json:"serial"`
	State      string `json:"state"`
	SocketPath string `json:"socket_path"`
	KeyState   string `json:"key_state"`
	IOState    string `json:"io_state"`
}

func (h *host) show(disk string) (v view) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.run("disk", "show", disk, "--output", "json")), &v); err != nil {
		h.t.Fatal(err)
	}
	return v
}

// export is a running "sealblk export".
type export struct {
	t      *testing.T
	cmd    *exec.Cmd
	socket string
	log    bytes.Buffer
	rest   io.Reader // of its log, after it was ready
	ended  bool
}

// export starts an export and waits until it is ready.
func (h *host) export(disk string, args ...string) *export {
	h.t.Helper()
	return h.exportAt(filepath.Join(h.dir, disk+".sock"), disk, args...)
}

// exportAt starts an export on a socket of that path.
func (h *host) exportAt(socket, disk string, args ...string) *export {
	h.t.Helper()
	return h.exportBy(h.command, socket, disk, args...)
}

func (h *host) exportBy(command func(...string) *exec.Cmd, socket, disk string, args ...string) *export {
	h.t.Helper()
	e := &export{t: h.t, socket: socket}
	e.cmd = command(append([]string{"export", disk, "--socket-path", e.socket}, args...)...)
	stderr, err := e.cmd.StderrPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	e.rest = stderr
	h.t.Cleanup(e.kill)
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		e.log.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "ready") {
			return e
		}
	}
	h.t.Fatalf("export of %s ended: %v\n%s", disk, e.cmd.Wait(), e.log.String())
	return nil
}

// stop ends the export as a service manager does. It must exit with 0.
func (e *export) stop() {
	e.t.Helper()
	e.ended = true
	e.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- e.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			e.t.Fatalf("export: %v", err)
		}
	case <-time.After(20 * time.Second):
		e.cmd.Process.Kill()
		<-done
		e.t.Fatal("export does not end on SIGTERM")
	}
}

func (e *export) alive() bool { return e.cmd.Process.Signal(syscall.Signal(0)) == nil }

// kill ends the export with no notice, and shows its log if the test has failed.
func (e *export) kill() {
	if e.ended {
		return
	}
	e.ended = true
	e.cmd.Process.Kill()
	if rest, _ := io.ReadAll(e.rest); e.t.Failed() {
		e.t.Logf("log of the export:\n%s%s", e.log.String(), rest)
	}
	e.cmd.Wait()
}

// boot starts a guest with two CPUs, two hot-plug slots, and disks that are there
// from the start.
func boot(t *testing.T, disks ...guest.Disk) *guest.VM {
	t.Helper()
	return guest.ForTest(t, guest.Config{CPUs: 2, RootPorts: 2, Disks: disks})
}

func cold(e *export) guest.Disk { return guest.Disk{ID: "cold", Socket: e.socket, Queues: 2} }

func powerOff(t *testing.T, vm *guest.VM) {
	t.Helper()
	if err := vm.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
}
