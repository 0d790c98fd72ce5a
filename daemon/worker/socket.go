package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"sealblk/internal/unixsocket"
	"sealblk/vhost"
)

// socket is what front-ends come in by: a listener, or one connection that was
// inherited.
type socket struct {
	listener *net.UnixListener
	conn     *net.UnixConn
	file     *unixsocket.Listener // of the listener, when it was made here

	inherited bool
}

// inherit takes over a socket that the parent process opened; none if fd is negative.
// It comes before all that opens descriptors of our own, one of which could get a
// number that the caller believes to be inherited.
func inherit(fd int) (*socket, error) {
	if fd < 0 {
		return &socket{}, nil
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil { // not ours to close: the runtime's own descriptors have numbers too
		return nil, fmt.Errorf("inherited descriptor %d is not a socket: %w", fd, err)
	}
	f := os.NewFile(uintptr(fd), "inherited socket")
	defer f.Close()
	s := &socket{inherited: true}
	if listening != 0 {
		ln, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("inherit socket: %w", err)
		}
		s.listener, _ = ln.(*net.UnixListener)
	} else {
		conn, err := net.FileConn(f)
		if err != nil {
			return nil, fmt.Errorf("inherit socket: %w", err)
		}
		s.conn, _ = conn.(*net.UnixConn)
	}
	if s.listener == nil && s.conn == nil {
		return nil, fmt.Errorf("inherited descriptor %d is not a unix socket", fd)
	}
	return s, nil
}

// listen makes the socket at path, unless one was inherited.
func (s *socket) listen(path string) error {
	if s.inherited {
		return nil
	}
	ln, err := unixsocket.Listen(path)
	if err != nil {
		return err
	}
	s.file, s.listener = ln, ln.UnixListener
	return nil
}

func (s *socket) serve(ctx context.Context, e *export) error {
	o := vhost.Options{Logger: e.opts.Log, Active: e.setActive, PollMax: e.opts.PollMax}
	if s.conn != nil {
		return vhost.ServeConn(ctx, s.conn, served{e.blk, e}, o)
	}
	return vhost.Serve(ctx, s.listener, served{e.blk, e}, o)
}

// close closes what the server has not closed yet, and removes the socket file.
func (s *socket) close() error {
	var err error
	switch {
	case s.listener != nil:
		err = s.listener.Close()
	case s.conn != nil:
		err = s.conn.Close()
	}
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if s.file != nil {
		err = errors.Join(err, s.file.Remove())
	}
	return err
}
