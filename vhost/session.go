package vhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/internal/eventfd"
	"sealblk/vhost/dirtylog"
	"sealblk/vhost/inflight"
	"sealblk/vhost/memory"
	"sealblk/vhost/protocol"
)

// messagePatience is how long the rest of a message, or the room for an answer,
// may take: a front-end that stalls does not keep the next one out.
const messagePatience = 10 * time.Second

// session is one front-end's stay. All of it but wake, configChanged and fault belongs
// to the goroutine that runs it.
type session struct {
	dev     Device
	log     *slog.Logger
	pollMax time.Duration
	conn    *protocol.Conn
	fd      int // of conn, to sleep on; conn owns it

	features         uint64 // accepted, virtio and vhost-user
	protocolFeatures uint64
	table            *memory.Table
	region           *inflight.Region // nil for none
	configured       bool             // by a SET_CONFIG of this session
	rings            []ring
	paused           bool      // no ring has a worker
	backend          *notifier // the back-end channel, nil for none
	dirtyLog         *dirtylog.Log
	dirtyCall        *notifier // told of marks, or nil

	message protocol.Message
	reply   []byte // of the message at hand
	replyFD int    // to go with it, -1 for none
	polls   []unix.PollFd
	waiting []*ring // the rings of polls, in their order

	wake          *eventfd.FD // context, fault, change or pause
	configChanged atomic.Bool // and the front-end was not told

	mu    sync.Mutex
	fault error // mu
}

func newSession(conn *net.UnixConn, dev Device, opts *Options) (*session, error) {
	c, err := protocol.NewConn(conn)
	if err != nil {
		return nil, err
	}
	fd, err := rawFD(c)
	if err != nil {
		return nil, joinClose(err, c)
	}
	wake, err := eventfd.New()
	if err != nil {
		return nil, joinClose(err, c)
	}
	s := &session{
		dev: dev, log: opts.logger(), pollMax: opts.PollMax, conn: c, fd: fd, wake: wake, replyFD: -1,
		table: &memory.Table{}, rings: make([]ring, dev.NumQueues()),
	}
	for i := range s.rings {
		s.rings[i].index = i
	}
	return s, nil
}

func rawFD(conn *protocol.Conn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	err = raw.Control(func(p uintptr) { fd = int(p) })
	return fd, err
}

func joinClose(err error, c io.Closer) error { return errors.Join(err, c.Close()) }

// run serves the front-end until it leaves (nil), the context is done (nil) or
// something ends the session.
func (s *session) run(ctx context.Context) error {
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cancelled)
		_ = s.wake.Signal()
		_ = s.conn.SetDeadline(time.Unix(1, 0)) // a read or write under way ends
	})
	unwatch, unwatchPause := s.watchConfig(), s.watchPause()
	err := s.serve(ctx)
	unwatch()
	unwatchPause()
	if !stop() {
		<-cancelled
	}
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, s.close())
}

func (s *session) serve(ctx context.Context) error {
	for {
		readable, err := s.wait()
		if err != nil {
			return err
		}
		if err := s.failure(); err != nil {
			return err
		}
		if err := s.obeyPause(); err != nil {
			return err
		}
		s.announce()
		if readable {
			if err := s.receive(ctx); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// wait is the only place where the session sleeps between messages. It starts the
// rings that were kicked and reports whether a message has come.
func (s *session) wait() (readable bool, err error) {
	s.polls = append(s.polls[:0],
		unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN},
		unix.PollFd{Fd: int32(s.wake.FD()), Events: unix.POLLIN},
		unix.PollFd{Fd: s.announceFD(), Events: unix.POLLOUT})
	const fixed = 3
	s.waiting = s.waiting[:0]
	for i := range s.rings {
		if r := &s.rings[i]; r.armed() {
			s.polls = append(s.polls, unix.PollFd{Fd: r.kick.waitFD(), Events: unix.POLLIN})
			s.waiting = append(s.waiting, r)
		}
	}
	if _, err := unix.Poll(s.polls, -1); err != nil && err != unix.EINTR {
		return false, fmt.Errorf("wait for messages: %w", err)
	}
	if s.polls[1].Revents != 0 {
		_, _ = s.wake.Clear()
	}
	for i, r := range s.waiting {
		s.kicked(r, s.polls[fixed+i].Revents)
	}
	return s.polls[0].Revents != 0, nil
}

// kicked starts a ring on its first kick. One whose kick descriptor was closed by
// the other side will never start.
func (s *session) kicked(r *ring, revents int16) {
	switch {
	case revents&unix.POLLIN != 0:
		r.started = true
		if err := s.advance(r); err != nil {
			s.log.Warn("ring does not start", "err", err)
		}
	case revents != 0:
		r.hasKick = false
		s.log.Warn("kick descriptor is closed", "ring", r.index)
	}
}

// receive reads and answers one message.
func (s *session) receive(ctx context.Context) error {
	if err := s.conn.SetDeadline(time.Now().Add(messagePatience)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil // its deadline may have come before ours
	}
	if err := s.conn.ReadMessage(&s.message); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("read message that stopped half way: %w", err)
		}
		return err
	}
	if err := s.dispatch(&s.message); err != nil {
		return fmt.Errorf("serve %v: %w", protocol.Request(s.message.Request), err)
	}
	return nil
}

// fail ends the session from another goroutine.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.fault == nil {
		s.fault = err
	}
	s.mu.Unlock()
	_ = s.wake.Signal()
}

func (s *session) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// close drains all rings and gives back everything.
func (s *session) close() error {
	err := s.haltAll()
	for i := range s.rings {
		s.rings[i].close()
	}
	s.backend.close()
	s.dirtyCall.close()
	s.message.Files.CloseAll()
	return errors.Join(err, s.conn.Close(), s.wake.Close(), s.region.Close(), s.table.Close(), s.dirtyLog.Close())
}

func (s *session) haltAll() error {
	var errs []error
	for i := range s.rings {
		errs = append(errs, s.halt(&s.rings[i]))
	}
	return errors.Join(errs...)
}

// resume starts the workers of all rings that should have one.
func (s *session) resume() error {
	var errs []error
	for i := range s.rings {
		errs = append(errs, s.advance(&s.rings[i]))
	}
	return errors.Join(errs...)
}
