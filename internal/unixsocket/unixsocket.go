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

// Listen makes a stream socket at path with mode 0600. A socket that nobody listens
// on any more is replaced; one that is alive, and anything that is not a socket, is
// left alone. The socket file stays when the listener is closed: see Remove.
func Listen(path string) (*net.UnixListener, error) {
	if err := clear(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	addr, release, err := short(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer release()
	ln, err := bind(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return ln, nil
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

// Remove deletes the socket file.
func Remove(path string) error {
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
	if err == nil {
		conn.Close()
		return ErrInUse
	}
	return Remove(path)
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
