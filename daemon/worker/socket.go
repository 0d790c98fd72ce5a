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
	path     string // to remove in the end
}

func listen(o Options) (*socket, error) {
	if o.FD >= 0 {
		return inherit(o.FD)
	}
	ln, err := unixsocket.Listen(o.SocketPath)
	if err != nil {
		return nil, err
	}
	return &socket{listener: ln, path: o.SocketPath}, nil
}

// inherit takes over a socket that the parent process opened.
func inherit(fd int) (*socket, error) {
	f := os.NewFile(uintptr(fd), "inherited socket")
	defer f.Close()
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, fmt.Errorf("inherited descriptor %d is not a socket: %w", fd, err)
	}
	s := &socket{}
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

func (s *socket) serve(ctx context.Context, e *export) error {
	o := vhost.Options{Logger: e.opts.Log, Active: e.active.Store}
	if s.conn != nil {
		return vhost.ServeConn(ctx, s.conn, e.blk, o)
	}
	return vhost.Serve(ctx, s.listener, e.blk, o)
}

// close closes what the server has not closed yet, and removes the socket file.
func (s *socket) close() error {
	var err error
	if s.listener != nil {
		err = s.listener.Close()
	} else {
		err = s.conn.Close()
	}
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if s.path != "" {
		err = errors.Join(err, unixsocket.Remove(s.path))
	}
	return err
}
