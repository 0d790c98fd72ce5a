package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// newGuard loads a guard of the test's own, on a BPF file system of its own. Where the
// kernel will not have it the tests run in a guest: see test/e2e.
func newGuard(t *testing.T) (dir string) {
	t.Helper()
	if err := Supported(); err != nil {
		leaktest.Elsewhere(t, err.Error(), "TestGuardInAKernelThatAllowsIt of test/e2e, in a guest")
	}
	mount := t.TempDir()
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(mount, unix.MNT_DETACH) })
	dir = filepath.Join(mount, "guard")
	t.Cleanup(func() { Unload(dir) })
	if err := Load(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// limit bounds every wait for another process.
const limit = 3 * patience

// victim is a process to look into.
func victim(t *testing.T) int {
	t.Helper()
	return start(t, exec.Command("cat"))
}

// start starts a program that answers a line with a line, and waits for that. Start
// alone is not enough: on some kernels (Linux 6.1) it returns while the child still
// shares this process's memory, and a look at one's own memory is no look at all for
// the kernel.
func start(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := io.WriteString(stdin, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := stdout.(*os.File).SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		t.Fatalf("wait for %s to run: %v", cmd, err)
	}
	return cmd.Process.Pid
}

// run runs a program to its end.
func run(t *testing.T, cmd string, args, env []string) (output []byte, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("%s %q runs for %v", cmd, args, limit))
	defer cancel()
	c := exec.CommandContext(ctx, cmd, args...)
	c.Env = append(os.Environ(), env...)
	output, err = c.CombinedOutput()
	return output, errors.Join(err, context.Cause(ctx))
}

// ways into another process's memory, by what root would use.
var ways = map[string]func(pid int) error{
	"/proc/PID/mem": func(pid int) error {
		f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err
	},
	"process_vm_readv":  func(pid int) error { return vm(pid, unix.ProcessVMReadv) },
	"process_vm_writev": func(pid int) error { return vm(pid, unix.ProcessVMWritev) },
	"pidfd_getfd": func(pid int) error {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		stolen, err := unix.PidfdGetfd(fd, 0, 0)
		if err == nil {
			unix.Close(stolen)
		}
		return err
	},
	"ptrace": func(pid int) error {
		done := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // a tracer is a thread: it ends with this goroutine, and lets go
			done <- trace(pid)
		}()
		select {
		case err := <-done:
			return err
		case <-time.After(limit):
			return fmt.Errorf("process %d has not stopped for its tracer after %v", pid, limit)
		}
	},
}

// trace stops a process and lets it go.
func trace(pid int) error {
	if err := unix.PtraceSeize(pid); err != nil {
		return err
	}
	if err := unix.PtraceInterrupt(pid); err != nil {
		return fmt.Errorf("interrupt: %w", err)
	}
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		return fmt.Errorf("wait for the stop: %w", err)
	}
	return unix.PtraceDetach(pid)
}

// vm moves nothing: to be allowed is enough.
func vm(pid int, call func(int, []unix.Iovec, []unix.RemoteIovec, uint) (int, error)) error {
	buf := make([]byte, 1)
	_, err := call(pid, []unix.Iovec{{Base: &buf[0], Len: 1}}, []unix.RemoteIovec{{Base: 0, Len: 1}}, 0)
	if errors.Is(err, unix.EFAULT) {
		return nil // it looked, and nothing is there
	}
	return err
}

func mustAll(t *testing.T, pid int, refused bool) {
	t.Helper()
	for name, way := range ways {
		err := way(pid)
		denied := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
		if err != nil && !denied {
			t.Errorf("%s: %v", name, err)
		} else if denied != refused {
			t.Errorf("%s: refused %v, want %v", name, denied, refused)
		}
	}
}

// TestGuard: root looks into any process, but for those that are registered, while the
// guard is loaded.
func TestGuard(t *testing.T) {
	dir := newGuard(t)
	pid, other := victim(t), victim(t)
	mustAll(t, pid, false)
	if err := Register(dir, pid); err != nil {
		t.Fatal(err)
	}
	mustAll(t, pid, true)
	mustAll(t, other, false)

	before, err := Guarded(dir)
	if err != nil || len(before) != 1 || before[0].PID != pid || before[0].Refused < uint64(len(ways)) {
		t.Fatalf("guarded are %v, %v", before, err)
	}
	// To register, or to load, a second time changes nothing.
	if err := errors.Join(Register(dir, pid), Load(dir)); err != nil {
		t.Fatal(err)
	}
	if after, err := Guarded(dir); err != nil || len(after) != 1 || after[0] != before[0] {
		t.Fatalf("guarded are %v, %v; were %v", after, err, before)
	}

	if err := Unload(dir); err != nil {
		t.Fatal(err)
	}
	mustAll(t, pid, false)
	if err := Loaded(dir); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("after Unload: %v", err)
	}
	if err := Unload(dir); err != nil {
		t.Errorf("second Unload: %v", err)
	}
}

// TestHeld: a guard that another process keeps in the kernel is not said to be off.
func TestHeld(t *testing.T) {
	dir := newGuard(t)
	l, err := link.LoadPinnedLink(filepath.Join(dir, pinLink), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Unload(dir); !errors.Is(err, ErrHeld) {
		t.Errorf("Unload: %v", err)
	}
}

// TestThreads: memory belongs to all threads of a process.
func TestThreads(t *testing.T) {
	dir := newGuard(t)
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestSleeper$")
	cmd.Env = append(os.Environ(), "GUARD_TEST_SLEEPER=1")
	pid := start(t, cmd)
	if err := Register(dir, pid); err != nil {
		t.Fatal(err)
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	for _, task := range tasks {
		f, err := os.Open(fmt.Sprintf("/proc/%d/task/%s/mem", pid, task.Name()))
		if err == nil {
			f.Close()
			t.Errorf("the memory of thread %s can be opened", task.Name())
		}
	}
	// Looking at what is not memory stays possible.
	for _, name := range []string{"maps", "status", "fd"} {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/%s", pid, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid)); err != nil || len(maps) == 0 {
		t.Errorf("maps cannot be read: %v", err)
	}
}

// TestSleeper is the process of TestThreads.
func TestSleeper(t *testing.T) {
	if os.Getenv("GUARD_TEST_SLEEPER") == "" {
		t.Skip("started by TestThreads")
	}
	io.Copy(os.Stdout, os.Stdin)
}

// TestOutlivesItsLoader: another process loads the guard and ends.
func TestOutlivesItsLoader(t *testing.T) {
	if dir := os.Getenv("GUARD_TEST_LOAD"); dir != "" {
		if err := Load(dir); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := newGuard(t)
	if err := Unload(dir); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "/proc/self/exe", []string{"-test.run", "^TestOutlivesItsLoader$"}, []string{"GUARD_TEST_LOAD=" + dir})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pid := victim(t)
	if err := Register(dir, pid); err != nil {
		t.Fatal(err)
	}
	mustAll(t, pid, true)
}

// TestHalfLoaded: a loader that was killed leaves no guard that cannot be loaded.
func TestHalfLoaded(t *testing.T) {
	dir := newGuard(t)
	if err := os.Remove(filepath.Join(dir, pinLink)); err != nil {
		t.Fatal(err)
	}
	if err := Register(dir, os.Getpid()); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("registers with half a guard: %v", err)
	}
	if err := Load(dir); err != nil {
		t.Fatal(err)
	}
	if err := Loaded(dir); err != nil {
		t.Fatal(err)
	}
}

func TestNotLoaded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nowhere")
	if err := Register(dir, os.Getpid()); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("Register: %v", err)
	}
	if _, err := Guarded(dir); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("Guarded: %v", err)
	}
	if err := Unload(dir); err != nil {
		t.Errorf("Unload: %v", err)
	}
	if Supported() != nil {
		return
	}
	if err := Load(dir); !errors.Is(err, ErrNoBPFFS) {
		t.Errorf("Load outside a BPF file system: %v", err)
	}
	if err := Register(newGuard(t), 1<<30); err == nil {
		t.Error("registered a process that does not exist")
	}
}

// TestDebuggerIsRefused: the usual tool makes no core dump of a registered process.
func TestDebuggerIsRefused(t *testing.T) {
	gcore := leaktest.Tool(t, "gcore")
	dir := newGuard(t)
	pid := victim(t)
	core := filepath.Join(t.TempDir(), "core")
	if err := Register(dir, pid); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, gcore, []string{"-o", core, fmt.Sprint(pid)}, nil); err == nil || !bytes.Contains(out, []byte("not permitted")) {
		t.Errorf("gcore of a guarded process: %v\n%s", err, out)
	}
	if err := Unload(dir); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, gcore, []string{"-o", core, fmt.Sprint(pid)}, nil); err != nil {
		t.Errorf("gcore with the guard off: %v\n%s", err, out)
	}
}
