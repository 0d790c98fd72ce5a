package attach

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"sealblk/daemon/control"
	"sealblk/daemon/worker"
	"sealblk/disk"
	"sealblk/internal/leaktest"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
	"sealblk/qmp"
)

// childMark, as first argument, makes the test binary another process: an export as
// Attach starts them, or a command that attaches.
const childMark = "as-a-child"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childMark {
		os.Exit(asChild(os.Args[2], os.Args[3], os.Args[4:]))
	}
	leaktest.Main(m)
}

// asChild is what the test binary does as an export (which gets its own last arguments),
// or as a command that attaches.
func asChild(mode, dir string, args []string) int {
	started := filepath.Join(dir, "started") // tells the test its pid
	if err := os.WriteFile(started+".tmp", fmt.Append(nil, os.Getpid()), 0o600); err != nil {
		return 1
	}
	os.Rename(started+".tmp", started)
	switch mode {
	case "serves":
		return export(dir, args[1], false)
	case "serves, and tells of its note":
		code := export(dir, args[1], false)
		if _, err := os.Stat(filepath.Join(dir, "run", args[1]+".attach")); err == nil {
			os.WriteFile(filepath.Join(dir, "noted"), nil, 0o600)
		}
		return code
	case "stands by":
		return export(dir, args[1], true)
	case "fails":
		fmt.Fprintln(os.Stderr, "level=WARN something else")
		fmt.Fprintln(os.Stderr, "sealblk: disk db: the sky has fallen; put it up again")
		return 1
	case "dies silently":
		return 1
	case "hangs":
		sleep()
	case "hangs and ignores signals":
		signal.Ignore(unix.SIGTERM)
		sleep()
	case "attaches":
		return attaches(dir, "serves")
	case "attaches by one that hangs":
		return attaches(dir, "hangs")
	}
	return 3
}

// sleep has no end. An empty select may be taken for a deadlock.
func sleep() {
	for {
		time.Sleep(time.Hour)
	}
}

func export(dir, name string, incoming bool) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	c, closeKeys, err := openCatalogue(dir)
	if err == nil {
		defer closeKeys()
		socket := c.SocketPath(name)
		if incoming {
			socket = c.StandbySocketPath(name)
		}
		err = worker.Run(ctx, c, worker.Options{
			Disk: name, SocketPath: socket, FD: -1, NumQueues: 2, QueueSize: 128, Incoming: incoming,
			Log:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
			Ready: func(control.Status) { daemon.SdNotify(false, daemon.SdNotifyReady) },
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sealblk:", err)
		return 1
	}
	return 0
}

// attaches is a command that attached and has not ended.
func attaches(dir, mode string) int {
	c, closeKeys, err := openCatalogue(dir)
	if err == nil {
		defer closeKeys()
		dial = func(context.Context, string) (machine, error) { return newVM(), nil }
		_, err = Attach(context.Background(), c, Options{Disk: "db", QMP: "/vm", Program: program(dir, mode)})
	}
	fmt.Println("attached", err)
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func program(dir, mode string) []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return []string{self, childMark, mode, dir}
}

// kmsDown is a file that is there while the KMS does not answer.
func kmsDown(dir string) string { return filepath.Join(dir, "kms-down") }

// frail is a KMS that is not always there.
type frail struct {
	*local.KMS
	dir string
}

func (f frail) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	if _, err := os.Stat(kmsDown(f.dir)); err == nil {
		return nil, fmt.Errorf("dial kms.example: %w", keymgr.ErrUnreachable)
	}
	return f.KMS.Decrypt(ctx, w, ec)
}

func openCatalogue(dir string) (*disk.Catalogue, func(), error) {
	retry := keymgr.Retry{Attempts: 5, Base: 20 * time.Millisecond, Max: 100 * time.Millisecond}
	keys := keymgr.NewSet(retry, map[string]keymgr.Opener{
		keymgr.SchemeLocal: func(context.Context) (keymgr.KMS, error) {
			k, err := local.Open(filepath.Join(dir, "kms"), local.Options{Principal: local.DiskService})
			return frail{k, dir}, err
		},
	})
	c, err := disk.OpenCatalogue(dir, keys)
	return c, func() { keys.Close() }, err
}

// vm is a machine that disks go in and out of as a test wants.
type vm struct {
	mu      sync.Mutex
	devices map[string]string // id -> socket
	// onAttach and onDetach, if there, are what becomes of the next call.
	onAttach, onDetach func(ctx context.Context) error
	migrated           bool // its guest is elsewhere
}

func newVM() *vm { return &vm{devices: map[string]string{}} }

func (v *vm) Attach(ctx context.Context, o qmp.AttachOptions) error {
	if v.onAttach != nil {
		if err := v.onAttach(ctx); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.devices[o.ID] = o.SocketPath
	return ctx.Err()
}

func (v *vm) Detach(ctx context.Context, id string) error {
	if v.onDetach != nil {
		if err := v.onDetach(ctx); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.devices, id)
	return nil
}

func (v *vm) Attached(_ context.Context, id string) (bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, there := v.devices[id]
	return there, nil
}

func (v *vm) Migrated(context.Context) (bool, error) { return v.migrated, nil }

func (v *vm) Close() {}

// host is a state directory with the disk db, and machines by their monitor's path.
type host struct {
	t   *testing.T
	c   *disk.Catalogue
	vms map[string]*vm
}

func newHost(t *testing.T) *host {
	t.Helper()
	c, closeKeys, err := openCatalogue(t.TempDir())
	t.Cleanup(closeKeys)
	if err == nil {
		_, err = c.Create(t.Context(), disk.CreateOptions{Name: "db", SizeBytes: 1 << 20, Encrypted: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t, c, map[string]*vm{"/vm": newVM()}}
	old := dial
	t.Cleanup(func() { dial = old })
	dial = func(ctx context.Context, socket string) (machine, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if v := h.vms[socket]; v != nil {
			return v, nil
		}
		return nil, fmt.Errorf("connect to %s: %w", socket, os.ErrNotExist)
	}
	t.Cleanup(func() { // whatever a test that failed left running
		if pid, ok := h.exporter(); ok {
			unix.Kill(pid, unix.SIGKILL)
		}
	})
	return h
}

func (h *host) attach(mode string) (Attachment, error) {
	return Attach(h.t.Context(), h.c, Options{Disk: "db", QMP: "/vm", Program: program(h.c.Dir(), mode)})
}

// export starts an export as an operator does.
func (h *host) export() (stop func()) { return h.exportAs("serves") }

func (h *host) exportAs(mode string) (stop func()) {
	h.t.Helper()
	p, err := start(h.t.Context(), h.c, Options{Disk: "db", Program: program(h.c.Dir(), mode)}, func(int) error { return nil })
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(p.end)
	return p.end
}

// exporter is the process that serves db, if there is one.
func (h *host) exporter() (pid int, ok bool) {
	s, err := control.Dial(h.c.ControlPath("db")).Status(context.Background())
	return s.PID, err == nil
}

// wantNothing fails if an attach left anything: a note, a device, an export, a process.
func (h *host) wantNothing() {
	h.t.Helper()
	if _, err := load(h.c, "db"); err == nil {
		h.t.Error("a note is left")
	}
	for path, v := range h.vms {
		if len(v.devices) > 0 {
			h.t.Errorf("the VM at %s still has %v", path, v.devices)
		}
	}
	h.wantNoExport()
}

func (h *host) wantNoExport() {
	h.t.Helper()
	if pid, ok := h.exporter(); ok {
		h.t.Errorf("an export runs, with pid %d", pid)
	}
	if pid, ok := h.started(); ok && alive(pid) {
		h.t.Errorf("process %d is left", pid)
	}
	d, err := h.c.Open(context.Background(), "db", disk.OpenOptions{})
	if err != nil {
		h.t.Fatalf("the disk is not free: %v", err)
	}
	d.Close()
}

// alive tells whether a process does anything; one that nobody has waited for does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

// started is the process that was started last.
func (h *host) started() (pid int, ok bool) {
	data, err := os.ReadFile(filepath.Join(h.c.Dir(), "started"))
	if err != nil {
		return 0, false
	}
	_, err = fmt.Sscan(string(data), &pid)
	return pid, err == nil
}

// awaitStarted waits for a process to begin.
func (h *host) awaitStarted() int {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if pid, ok := h.started(); ok {
			return pid
		}
	}
	h.t.Error("no process was started")
	return 0
}

// awaitNote waits for the note of an attach.
func (h *host) awaitNote() Attachment {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if a, err := load(h.c, "db"); err == nil {
			return a
		}
	}
	h.t.Fatal("no attach was noted")
	return Attachment{}
}

func oneLine(t *testing.T, err error) {
	t.Helper()
	if err == nil || strings.Contains(strings.TrimSpace(err.Error()), "\n") {
		t.Errorf("not an error of one line: %q", fmt.Sprint(err))
	}
}
