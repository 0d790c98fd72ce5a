package faults

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/crypt"
	"sealblk/cipher"
	"sealblk/vhost"
	"sealblk/vhost/blk"
	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
)

const (
	patience  = 20 * time.Second
	queueSize = 64
	maxBytes  = 64 << 10 // of one request
)

var (
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
	key   = append(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)...)
)

// failer is a test, or a property.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func must(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

func encrypted(t failer, lower blockdev.Device, unit int) *crypt.Device {
	t.Helper()
	x, err := cipher.NewXTS(key, unit)
	must(t, err)
	d, err := crypt.New(lower, x, crypt.Options{})
	must(t, err)
	return d
}

// stack is a guest's driver over an encrypted disk over a device.
type stack struct {
	t     failer
	queue *frontend.Queue
	disk  *frontend.Disk
	blk   *blk.Device
	crypt *crypt.Device
	ended sync.WaitGroup

	free []*frontend.Request
	done []*frontend.Request
	// onDone is told of each completion; its key is the request's.
	onDone map[*frontend.Request]func(error)
}

func newStack(t failer, lower blockdev.Device, unit int) *stack {
	t.Helper()
	s := &stack{t: t, crypt: encrypted(t, lower, unit), onDone: make(map[*frontend.Request]func(error))}
	var err error
	s.blk, err = blk.New(s.crypt, blk.Options{MaxQueueSize: queueSize, Logger: quiet})
	must(t, err)
	front, back := socketpair(t)
	s.ended.Go(func() {
		_ = vhost.ServeConn(context.Background(), back, s.blk, vhost.Options{Logger: quiet, PollMax: vhost.DefaultPollMax})
	})
	conn, err := protocol.NewConn(front)
	must(t, err)
	s.disk, err = frontend.OpenSession(frontend.NewSession(conn), frontend.Options{QueueSize: queueSize, Timeout: patience})
	must(t, err)
	s.queue = s.disk.Queue(0)
	for range queueSize / 2 {
		r, err := s.queue.NewRequest(maxBytes)
		must(t, err)
		s.free = append(s.free, r)
	}
	s.done = make([]*frontend.Request, queueSize)
	return s
}

// close ends the session; no request may hang.
func (s *stack) close() {
	s.t.Helper()
	err := s.disk.Close()
	s.ended.Wait()
	must(s.t, errors.Join(err, s.crypt.Close()))
}

// submit sends a request, after it has made room for one. Data goes out with a
// write, and is nil for a flush; onDone gets the request's outcome and what was read.
func (s *stack) submit(typ uint32, offset int64, data []byte, length int64, onDone func(err error, in []byte)) {
	s.t.Helper()
	for len(s.free) == 0 {
		s.wait()
	}
	r := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	r.Type, r.Sector, r.Length = typ, uint64(offset)/frontend.SectorSize, int(length)
	switch typ {
	case frontend.TypeOut:
		copy(r.Data, data)
	case frontend.TypeDiscard, frontend.TypeWriteZeroes:
		b := frontend.Range{Sector: r.Sector, Sectors: uint32(length / frontend.SectorSize)}.Append(r.Data[:0])
		r.Sector, r.Length = 0, len(b)
	case frontend.TypeFlush:
		r.Sector, r.Length = 0, 0
	}
	s.onDone[r] = func(err error) { onDone(err, r.Data[:r.Length]) }
	must(s.t, s.queue.Submit(r))
	must(s.t, s.queue.Notify())
}

// wait takes at least one completion.
func (s *stack) wait() {
	s.t.Helper()
	n, err := s.queue.Wait(s.done)
	must(s.t, err)
	s.take(n)
}

// poll takes what there is.
func (s *stack) poll() {
	s.t.Helper()
	n, err := s.queue.Poll(s.done)
	must(s.t, err)
	s.take(n)
}

func (s *stack) take(n int) {
	s.t.Helper()
	for _, r := range s.done[:n] {
		err := r.Err()
		if err != nil && !errors.Is(err, frontend.ErrIO) {
			s.t.Fatalf("request of type %d: %v", r.Type, err)
		}
		end := s.onDone[r]
		delete(s.onDone, r)
		s.free = append(s.free, r)
		end(err)
	}
}

func (s *stack) drain() {
	s.t.Helper()
	for len(s.onDone) > 0 {
		s.wait()
	}
}

func (s *stack) stats() blk.QueueStats { return s.blk.Stats()[0] }

func socketpair(t failer) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	return unixConn(t, fds[0]), unixConn(t, fds[1])
}

func unixConn(t failer, fd int) *net.UnixConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	must(t, err)
	return c.(*net.UnixConn)
}
