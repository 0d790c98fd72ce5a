// Package unixsocket listens on and connects to unix sockets by path: private ones
// (mode 0600), at paths of any length, without stealing one that is alive.
package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrInUse: somebody listens at the path.
var ErrInUse = errors.New("another program listens there")

// maxPath is what fits sockaddr_un (unix(7)), less the final NUL.
const maxPath = 107

// Listener is a listening socket and its file.
type Listener struct {
	*net.UnixListener
	path string
	file os.FileInfo // nil if it could not be looked at
}

// Listen makes a stream socket at path with mode 0600. A socket that nobody listens
// on any more is replaced; one that is alive, and anything that is not a socket, is
// left alone. The socket file stays when the listener is closed: see Remove.
func Listen(path string) (*Listener, error) {
	ln, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		info = nil // it was removed at once; then there is nothing for Remove to do
	}
	return &Listener{ln, path, info}, nil
}

func listen(path string) (*net.UnixListener, error) {
	if err := clear(path); err != nil {
		return nil, err
	}
	addr, release, err := short(path)
	if err != nil {
		return nil, err
	}
	defer release()
	return bind(addr)
}

// bind makes the socket, private from its first moment.
func bind(addr string) (*net.UnixListener, error) {
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: addr, Net: "unix"})
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	ln.SetUnlinkOnClose(false)
	return ln, nil
}

// Remove deletes the socket file, unless it has become another's meanwhile.
func (l *Listener) Remove() error {
	info, err := os.Lstat(l.path)
	if err != nil || l.file == nil || !os.SameFile(info, l.file) {
		return nil
	}
	return remove(l.path)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// clear makes way for a new socket.
func clear(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return errors.New("a file that is not a socket is there")
	}
	conn, err := Dial(context.Background(), path)
	switch {
	case err == nil:
		conn.Close()
		return ErrInUse
	case errors.Is(err, unix.EAGAIN): // more are waiting to be accepted than it has room for
		return ErrInUse
	case errors.Is(err, unix.ECONNREFUSED):
		return remove(path)
	case errors.Is(err, os.ErrNotExist): // its owner has just removed it
		return nil
	}
	return err
}

// Dial connects to the socket at path.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	addr, release, err := short(path)
	if err != nil {
		return nil, err
	}
	defer release()
	var d net.Dialer
	return d.DialContext(ctx, "unix", addr)
}

// short is a name for path that fits a socket address: path itself, or its last
// part behind a descriptor of its folder. release closes that descriptor.
func short(path string) (addr string, release func(), err error) {
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	addr = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	if len(addr) > maxPath {
		dir.Close()
		return "", nil, unix.ENAMETOOLONG
	}
	return addr, func() { dir.Close() }, nil
}
