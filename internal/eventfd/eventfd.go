package eventfd

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// FD is an open eventfd: non-blocking, closed on exec.
type FD struct{ fd int }

// New opens an eventfd that is not signalled.
func New() (*FD, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open eventfd: %w", err)
	}
	return &FD{fd}, nil
}

// FD is the descriptor to wait on; it polls readable while signalled. It stays
// the property of e.
func (e *FD) FD() int { return e.fd }

// Signal makes the descriptor readable. A counter that is full already is.
func (e *FD) Signal() error {
	for {
		switch errno := write(e.fd); errno {
		case 0, unix.EAGAIN:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// Clear takes the signals and tells whether there were any.
func (e *FD) Clear() (bool, error) {
	for {
		switch errno := read(e.fd); errno {
		case 0:
			return true, nil
		case unix.EAGAIN:
			return false, nil
		case unix.EINTR:
		default:
			return false, errno
		}
	}
}

// Close closes the descriptor.
func (e *FD) Close() error {
	fd := e.fd
	e.fd = -1
	return unix.Close(fd)
}
