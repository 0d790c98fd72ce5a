package vhost_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/memory"
	"sealblk/internal/leaktest"
	"sealblk/vhost"
	"sealblk/vhost/blk"
	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
)

func TestMain(m *testing.M) {
	if args, ok := os.LookupEnv(victimEnv); ok {
		fmt.Fprintln(os.Stderr, beVictim(args))
		os.Exit(1)
	}
	leaktest.Main(m)
}

const (
	capacity = 4 << 20
	queues   = 3
	patience = 10 * time.Second
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// newDevice is a disk in memory whose requests can be held.
func newDevice(t testing.TB) (*blk.Device, *blockdevtest.Fault) {
	t.Helper()
	mem, err := memory.New(capacity, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fault := blockdevtest.NewFault(mem, blockdevtest.FaultOptions{Async: true, Seed: 1})
	t.Cleanup(func() { fault.Close() })
	dev, err := blk.New(fault, blk.Options{NumQueues: queues, MaxQueueSize: 256, Serial: "test", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return dev, fault
}

// pair connects a front-end to a session, whose result comes out of ended.
func pair(t testing.TB, ctx context.Context, dev vhost.Device) (s *frontend.Session, ended <-chan error) {
	t.Helper()
	front, back := socketpair(t)
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		done <- vhost.ServeConn(ctx, back, dev, vhost.Options{Logger: quiet, PollMax: vhost.DefaultPollMax})
	})
	conn, err := protocol.NewConn(front)
	if err != nil {
		t.Fatal(err)
	}
	s = frontend.NewSession(conn)
	s.SetTimeout(patience)
	t.Cleanup(func() { s.Close(); wg.Wait() })
	return s, done
}

func socketpair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return unixConn(t, fds[0]), unixConn(t, fds[1])
}

func unixConn(t testing.TB, fd int) *net.UnixConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

// connect negotiates without starting a ring.
func connect(t testing.TB, dev vhost.Device, o frontend.Options) (*frontend.Disk, <-chan error) {
	t.Helper()
	s, ended := pair(t, context.Background(), dev)
	o.Timeout = patience
	d, err := frontend.Connect(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeDisk(d) })
	return d, ended
}

// start is connect, and all rings run.
func start(t testing.TB, dev vhost.Device, o frontend.Options) (*frontend.Disk, <-chan error) {
	t.Helper()
	d, ended := connect(t, dev, o)
	must(t, d.Start())
	return d, ended
}

// closeDisk is for disks whose session the test may have ended.
func closeDisk(d *frontend.Disk) { _ = d.Close() }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantRefused(t testing.TB, what string, err error) {
	t.Helper()
	if !errors.Is(err, frontend.ErrRefused) {
		t.Errorf("%s: %v, want a refusal", what, err)
	}
}

// wantEnd waits for the session to end with an error that is want; nil is none.
func wantEnd(t testing.TB, ended <-chan error, want error) {
	t.Helper()
	select {
	case err := <-ended:
		if !errors.Is(err, want) {
			t.Errorf("session ended with %v, want %v", err, want)
		}
	case <-time.After(patience):
		t.Fatal("session goes on")
	}
}

// alive checks that the session answers.
func alive(t testing.TB, s *frontend.Session) {
	t.Helper()
	if _, err := s.GetFeatures(); err != nil {
		t.Fatalf("session is gone: %v", err)
	}
}

func request(t testing.TB, q *frontend.Queue, typ uint32, sector uint64, n int) *frontend.Request {
	t.Helper()
	r, err := q.NewRequest(n)
	must(t, err)
	r.Type, r.Sector = typ, sector
	return r
}

func submit(t testing.TB, q *frontend.Queue, r *frontend.Request) {
	t.Helper()
	must(t, q.Submit(r))
	must(t, q.Notify())
}

// roundTrip checks that a queue serves.
func roundTrip(t testing.TB, q *frontend.Queue) {
	t.Helper()
	r := request(t, q, frontend.TypeIn, 0, 4096)
	if err := q.Do(r); err != nil {
		t.Fatalf("read: %v", err)
	}
}

func waitDone(t testing.TB, q *frontend.Queue) *frontend.Request {
	t.Helper()
	done := make([]*frontend.Request, 1)
	if n, err := q.Wait(done); n != 1 || err != nil {
		t.Fatalf("wait: %d, %v", n, err)
	}
	must(t, done[0].Err())
	return done[0]
}

// until polls for something that another goroutine is about to do.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not happen", what)
		}
	}
}

// readable tells whether a descriptor polls readable within a time.
func readable(t testing.TB, fd int, d time.Duration) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for end := time.Now().Add(d); ; {
		n, err := unix.Poll(p, max(0, int(time.Until(end).Milliseconds())))
		if err == unix.EINTR {
			continue
		}
		must(t, err)
		return n == 1
	}
}

// serve runs Serve on a socket until the test ends.
func serve(t testing.TB, dev vhost.Device) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := vhost.Serve(ctx, ln, dev, vhost.Options{Logger: quiet, PollMax: vhost.DefaultPollMax}); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); ln.Close() })
	return socket
}

func openDisk(t testing.TB, socket string) *frontend.Disk {
	t.Helper()
	d, err := frontend.Open(context.Background(), socket, frontend.Options{Timeout: patience})
	must(t, err)
	return d
}
