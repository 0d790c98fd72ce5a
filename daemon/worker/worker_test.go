package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev/file"
	"sealblk/daemon/control"
	"sealblk/disk"
	"sealblk/internal/leaktest"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/test/independent"
	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const diskSize = 4 << 20

// host is a state directory with its catalogue.
type host struct {
	t         testing.TB
	catalogue *disk.Catalogue
	socket    string
}

func newHost(t testing.TB) *host {
	t.Helper()
	dir := t.TempDir()
	keys := keymgr.NewSet(keymgr.DefaultRetry, map[string]keymgr.Opener{
		keymgr.SchemeLocal: func(context.Context) (keymgr.KMS, error) {
			return local.Open(filepath.Join(dir, "kms"), local.Options{Principal: local.DiskService})
		},
	})
	t.Cleanup(func() { keys.Close() })
	c, err := disk.OpenCatalogue(dir, keys)
	if err != nil {
		t.Fatal(err)
	}
	return &host{t, c, filepath.Join(dir, "s")}
}

func (h *host) create(name string, encrypted bool, sectorSize int) disk.Record {
	h.t.Helper()
	r, err := h.catalogue.Create(context.Background(), disk.CreateOptions{
		Name: name, SizeBytes: diskSize, Encrypted: encrypted, SectorSize: sectorSize,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// export runs a worker until stop is called, which returns what Run returned.
func (h *host) export(o Options) (stop func() error) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	if o.SocketPath == "" {
		o.SocketPath = h.socket
	}
	o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	o.Ready = func(control.Status) { close(ready) }
	if o.NumQueues == 0 {
		o.NumQueues, o.QueueSize = 2, 128
	}
	go func() { done <- Run(ctx, h.catalogue, o) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		h.t.Fatalf("export: %v", err)
	}
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	h.t.Cleanup(func() { stop() })
	return stop
}

func (h *host) connect() *frontend.Disk {
	h.t.Helper()
	d, err := frontend.Open(context.Background(), h.socket, frontend.Options{Timeout: 10 * time.Second})
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

// TestWholeDiskByteForByte: what a front-end writes over the whole disk is, on the
// host, what other software decrypts to the same bytes; a later export serves it again.
func TestWholeDiskByteForByte(t *testing.T) {
	for _, unit := range []int{512, 4096} {
		for _, engine := range []file.Engine{file.EngineUring, file.EngineThreads} {
			t.Run(engine.String()+"/"+map[int]string{512: "512", 4096: "4096"}[unit], func(t *testing.T) {
				h := newHost(t)
				r := h.create("db", true, unit)
				want := make([]byte, diskSize)
				random := rand.NewChaCha8([32]byte{byte(unit)})
				random.Read(want)

				stop := h.export(Options{Disk: "db", FD: -1, Engine: engine})
				d := h.connect()
				if d.Config.BlkSize != uint32(unit) || d.Capacity() != diskSize {
					t.Fatalf("blocks of %d, %d bytes", d.Config.BlkSize, d.Capacity())
				}
				if _, err := d.Queue(0).WriteAt(want, 0); err != nil {
					t.Fatal(err)
				}
				if err := d.Queue(0).Flush(); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(d.Close(), stop()); err != nil {
					t.Fatal(err)
				}

				if img, err := os.ReadFile(r.Where()); err != nil || bytes.Contains(img, want[:64]) {
					t.Fatalf("plaintext on the host, or no file: %v", err)
				}
				key, err := h.catalogue.ExportKey(context.Background(), "db", "k")
				if err != nil {
					t.Fatal(err)
				}
				defer key.Destroy()
				var plain bytes.Buffer
				if err := independent.Decrypt(&plain, r.Where(), key.Bytes(), independent.Layout{Offset: 16 << 20, Size: diskSize, SectorSize: unit}); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(plain.Bytes(), want) {
					t.Fatal("other software decrypts to something else")
				}

				stop = h.export(Options{Disk: "db", FD: -1, Engine: engine})
				d = h.connect()
				got := make([]byte, diskSize)
				if _, err := d.Queue(0).ReadAt(got, 0); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Fatal("a later export reads something else")
				}
				if err := errors.Join(d.Close(), stop()); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestExportEndsClean(t *testing.T) {
	h := newHost(t)
	h.create("db", true, 512)
	stop := h.export(Options{Disk: "db", FD: -1})
	status, err := control.Dial(h.catalogue.ControlPath("db")).Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if status.PID != os.Getpid() || !status.Encrypted || status.SocketPath != h.socket || status.Connected {
		t.Fatalf("status %+v", status)
	}
	if rt, ok := h.catalogue.Runtime("db"); !ok || rt.SocketPath != h.socket {
		t.Fatalf("runtime %+v, %v", rt, ok)
	}
	d := h.connect()
	defer d.Close()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{h.socket, h.catalogue.ControlPath("db")} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if _, ok := h.catalogue.Runtime("db"); ok {
		t.Error("the disk still seems to be exported")
	}
}

func TestControlStops(t *testing.T) {
	h := newHost(t)
	h.create("db", false, 512)
	stop := h.export(Options{Disk: "db", FD: -1})
	client := control.Dial(h.catalogue.ControlPath("db"))
	if err := client.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Status(context.Background()); !errors.Is(err, control.ErrNotRunning) {
		t.Fatalf("got %v; want ErrNotRunning", err)
	}
}

func TestOneExportAtATime(t *testing.T) {
	h := newHost(t)
	h.create("db", true, 512)
	h.export(Options{Disk: "db", FD: -1})
	o := Options{Disk: "db", FD: -1, SocketPath: h.socket + "2", NumQueues: 1, QueueSize: 128}
	if err := Run(context.Background(), h.catalogue, o); !errors.Is(err, disk.ErrInUse) {
		t.Fatalf("second export: %v; want ErrInUse", err)
	}
	if err := h.catalogue.Delete("db"); !errors.Is(err, disk.ErrInUse) {
		t.Fatalf("delete: %v; want ErrInUse", err)
	}
}

func TestFrontEndsOneAfterTheOther(t *testing.T) {
	h := newHost(t)
	h.create("db", true, 4096)
	h.export(Options{Disk: "db", FD: -1})
	want := bytes.Repeat([]byte("sealed"), 4096/6+1)[:4096]
	d := h.connect()
	if _, err := d.Queue(0).WriteAt(want, 8192); err != nil {
		t.Fatal(err)
	}
	d.Session.Close() // without a word, as a VM that was killed
	d.Close()
	d = h.connect()
	defer d.Close()
	got := make([]byte, 4096)
	if _, err := d.Queue(0).ReadAt(got, 8192); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %.6q, %v", got, err)
	}
	if id, err := d.Queue(0).GetID(); err != nil || len(id) == 0 {
		t.Fatalf("serial %q, %v", id, err)
	}
}

func TestReadOnlyExport(t *testing.T) {
	h := newHost(t)
	h.create("db", true, 512)
	h.export(Options{Disk: "db", FD: -1, ReadOnly: true})
	d := h.connect()
	defer d.Close()
	if !d.Has(frontend.FeatureReadOnly) {
		t.Fatal("the guest is not told that the disk is read-only")
	}
	if _, err := d.Queue(0).WriteAt(make([]byte, 512), 0); err == nil {
		t.Fatal("a write to a read-only disk succeeded")
	}
}

func TestPlainFile(t *testing.T) {
	h := newHost(t)
	path := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := h.export(Options{BlkFile: path, FD: -1})
	d := h.connect()
	want := bytes.Repeat([]byte{0xa5}, 4096)
	if _, err := d.Queue(0).WriteAt(want, 4096); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Close(), stop()); err != nil {
		t.Fatal(err)
	}
	if img, err := os.ReadFile(path); err != nil || !bytes.Equal(img[4096:8192], want) {
		t.Fatalf("the file holds something else: %v", err)
	}
}

// TestInheritedSockets: a listening socket serves many front-ends, a connected one
// ends the export with its front-end.
func TestInheritedSockets(t *testing.T) {
	h := newHost(t)
	h.create("db", false, 512)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	fd := dup(t, f)
	stop := h.export(Options{Disk: "db", FD: fd, SocketPath: "inherited"})
	for range 2 {
		if err := h.connect().Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// dup gives the export a descriptor of its own, as inheritance does.
func dup(t *testing.T, f *os.File) int {
	t.Helper()
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestInheritedConnection(t *testing.T) {
	h := newHost(t)
	h.create("db", true, 512)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	stop := h.export(Options{Disk: "db", FD: pair[0]})
	ours := os.NewFile(uintptr(pair[1]), "front-end")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	wire, err := protocol.NewConn(conn.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	d, err := frontend.OpenSession(frontend.NewSession(wire), frontend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Queue(0).WriteAt(make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestRefusesWhatIsNotASocket: a descriptor that is none of ours to serve on is left
// as it was. It might be the runtime's.
func TestRefusesWhatIsNotASocket(t *testing.T) {
	h := newHost(t)
	h.create("db", false, 512)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, fd := range []int{int(f.Fd()), 1 << 20} {
		o := Options{Disk: "db", FD: fd, NumQueues: 1, QueueSize: 128}
		if err := Run(context.Background(), h.catalogue, o); err == nil {
			t.Fatalf("served on descriptor %d", fd)
		}
	}
	if _, err := f.Stat(); err != nil {
		t.Fatalf("the descriptor was closed: %v", err)
	}
}

// TestQueueThreadsTakeNoSignals: what a signal saves of a thread's registers stays in
// memory, so none may reach a thread that encrypts.
func TestQueueThreadsTakeNoSignals(t *testing.T) {
	h := newHost(t)
	h.create("db", true, 512)
	h.export(Options{Disk: "db", FD: -1})
	before := lastingDeafThreads(t)
	d, err := frontend.Open(context.Background(), h.socket, frontend.Options{Queues: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, q := range d.Queues() { // a ring starts with its first kick
		if _, err := q.WriteAt(make([]byte, 512), 0); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(10 * time.Second); ; {
		got := lastingDeafThreads(t) - before
		if got == 2 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d threads block Go's preemption signal, want the 2 that serve queues", got)
		}
	}
}

// lastingDeafThreads waits for two counts that agree: Go makes each thread with all signals
// blocked, until it runs.
func lastingDeafThreads(t *testing.T) int {
	t.Helper()
	for was := -1; ; time.Sleep(20 * time.Millisecond) {
		n := deafThreads(t)
		if n == was {
			return n
		}
		was = n
	}
}

// deafThreads counts the threads of this process that block SIGURG.
func deafThreads(t *testing.T) (n int) {
	t.Helper()
	paths, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		if strings.HasPrefix(string(text), "Name:\tiou-") {
			continue // the kernel's own, of an io_uring
		}
		_, after, found := strings.Cut(string(text), "SigBlk:\t")
		if !found {
			t.Fatalf("%s has no signal mask", path)
		}
		mask, err := strconv.ParseUint(after[:16], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if mask>>(unix.SIGURG-1)&1 == 1 {
			n++
		}
	}
	return n
}
