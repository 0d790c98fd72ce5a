package frontend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

// Session is the front-end's end of a vhost-user connection.
type Session struct {
	conn    *protocol.Conn
	timeout time.Duration

	mu       sync.Mutex
	replyAck bool
	msg      protocol.Message

	backend *backendChannel
}

// Dial connects to a back-end that listens on a unix socket.
func Dial(ctx context.Context, path string) (*Session, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to back-end: %w", err)
	}
	conn, err := protocol.NewConn(c.(*net.UnixConn))
	if err != nil {
		return nil, err
	}
	return NewSession(conn), nil
}

// NewSession takes ownership of a connection to a back-end.
func NewSession(c *protocol.Conn) *Session { return &Session{conn: c} }

// SetTimeout bounds the time that a back-end may take over each answer; zero, as
// at the start, is no bound.
func (s *Session) SetTimeout(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timeout = d
}

// Conn is the connection itself, for messages that no method sends.
func (s *Session) Conn() *protocol.Conn { return s.conn }

// Close closes the connection and the back-end channel.
func (s *Session) Close() error {
	// A Disk has a second descriptor of the connection, which must not keep it up.
	err := errors.Join(s.shutdown(unix.SHUT_RDWR), s.conn.Close())
	if s.backend != nil {
		err = errors.Join(err, s.backend.close())
		s.backend = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.msg.Files.CloseAll()
	return err
}

// Leave tells the back-end that nothing more comes, and waits until it has closed its end,
// for as long as patience at most. Close is still to be called. A back-end that is told
// to exit while it is still at that may never do so: qemu-storage-daemon 7.2 waits then
// with a lock that the thread of the session needs to end it.
func (s *Session) Leave(patience time.Duration) error {
	end := time.Now().Add(patience)
	if err := s.shutdown(unix.SHUT_WR); err != nil {
		return err
	}
	fd, err := s.dup()
	if err != nil {
		return err
	}
	return errors.Join(awaitHangup(fd, end), unix.Close(fd))
}

// awaitHangup waits until the other end of a connection is closed. What it still sends is
// left alone.
func awaitHangup(fd int, end time.Time) error {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, int(max(0, time.Until(end).Milliseconds())))
		switch {
		case n > 0:
			return nil
		case err != nil && err != unix.EINTR:
			return fmt.Errorf("wait until the back-end lets go: %w", err)
		case err == nil:
			return fmt.Errorf("wait until the back-end lets go: %w", ErrTimeout)
		}
	}
}

// Interrupt ends the connection and every wait on it, from any goroutine. Close is
// still to be called.
func (s *Session) Interrupt() { _ = s.shutdown(unix.SHUT_RDWR) }

// Set sends a message that has no reply of its own. With REPLY_ACK negotiated it
// waits for the back-end's answer; without, nil means that it was sent.
func (s *Session) Set(r protocol.Request, payload []byte, fds ...int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set(r, payload, fds)
}

func (s *Session) set(r protocol.Request, payload []byte, fds []int) error {
	if !s.replyAck {
		return s.send(protocol.NewHeader(r, 0), payload, fds)
	}
	if err := s.send(protocol.NewHeader(r, protocol.FlagNeedReply), payload, fds); err != nil {
		return err
	}
	if err := s.receive(r); err != nil {
		return err
	}
	code, err := protocol.DecodeU64(s.msg.Payload)
	if err != nil {
		return fmt.Errorf("answer to %v: %w: %w", r, ErrBackend, err)
	}
	if code != 0 {
		return fmt.Errorf("%v: code %d: %w", r, code, ErrRefused)
	}
	return nil
}

// Get sends a message that has a reply and passes the reply to use, which must not
// keep the payload.
func (s *Session) Get(r protocol.Request, payload []byte, use func(*protocol.Message) error, fds ...int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.send(protocol.NewHeader(r, 0), payload, fds); err != nil {
		return err
	}
	if err := s.receive(r); err != nil {
		return err
	}
	defer s.msg.Files.CloseAll()
	if err := use(&s.msg); err != nil {
		return fmt.Errorf("reply to %v: %w: %w", r, ErrBackend, err)
	}
	return nil
}

// SendRaw sends any message without waiting for anything.
func (s *Session) SendRaw(h protocol.Header, payload []byte, fds ...int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.send(h, payload, fds)
}

// Receive reads the next message from the back-end, whatever it is. The payload is
// valid until the next use of the session.
func (s *Session) Receive() (*protocol.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.read(); err != nil {
		return nil, err
	}
	return &s.msg, nil
}

func (s *Session) send(h protocol.Header, payload []byte, fds []int) error {
	if err := s.conn.SetWriteDeadline(s.deadline()); err != nil {
		return connError(err)
	}
	if err := s.conn.WriteMessage(h, payload, fds...); err != nil {
		return fmt.Errorf("send %v: %w", protocol.Request(h.Request), connError(err))
	}
	return nil
}

// receive reads the reply to a request into s.msg.
func (s *Session) receive(r protocol.Request) error {
	if err := s.read(); err != nil {
		return fmt.Errorf("wait for the reply to %v: %w", r, err)
	}
	if !s.msg.IsReply() || protocol.Request(s.msg.Request) != r {
		return fmt.Errorf("reply to %v is %v with flags %#x: %w", r, protocol.Request(s.msg.Request), uint32(s.msg.Flags), ErrBackend)
	}
	return nil
}

func (s *Session) read() error {
	if err := s.conn.SetReadDeadline(s.deadline()); err != nil {
		return connError(err)
	}
	return connError(s.conn.ReadMessage(&s.msg))
}

func (s *Session) deadline() time.Time {
	if s.timeout == 0 {
		return time.Time{}
	}
	return time.Now().Add(s.timeout)
}

// connError adds what an error of the connection means for the session.
func connError(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrClosed),
		errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%w: %w", ErrDisconnected, err)
	}
	return err
}

func (s *Session) shutdown(how int) error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.Shutdown(int(fd), how) }); err != nil {
		return err
	}
	if serr == unix.ENOTCONN || serr == unix.ENOTSOCK { // the back-end was faster; no socket
		return nil
	}
	return serr
}

// Peer is the process that listens at the other end of a unix socket (SO_PEERCRED in
// unix(7)); 0 if it is in another PID namespace.
func (s *Session) Peer() (pid int, err error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if cerr != nil {
		return 0, fmt.Errorf("ask who the peer is: %w", cerr)
	}
	return int(cred.Pid), nil
}

// dup is a descriptor of the connection, to watch for its end with poll(2).
func (s *Session) dup() (int, error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, derr := -1, error(nil)
	err = raw.Control(func(c uintptr) {
		fd, derr = unix.FcntlInt(c, unix.F_DUPFD_CLOEXEC, 0)
	})
	return fd, errors.Join(err, derr)
}
