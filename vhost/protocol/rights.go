package protocol

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// controlSize is the size of a control message with MaxFiles descriptors:
// CMSG_SPACE(4 * MaxFiles), which no function gives as a constant. It is a multiple
// of 8 that leaves no room for one more.
const controlSize = 16 + 4*MaxFiles

// recv reads once: some bytes of p, and the descriptors attached to them.
func (c *Conn) recv(p []byte, f *Files) (n int, err error) {
	var nctl, flags int
	rerr := c.raw.Read(func(fd uintptr) bool {
		n, nctl, flags, err = c.recvOnce(int(fd), p)
		return !errors.Is(err, unix.EAGAIN)
	})
	if rerr != nil {
		return 0, rerr
	}
	if err != nil {
		return 0, err
	}
	// Descriptors that were installed get their owner before anything is refused.
	ferr := c.keepRights(c.rctl[:nctl], f)
	if flags&unix.MSG_CTRUNC != 0 {
		ferr = ErrTooManyFiles
	}
	if ferr != nil {
		return n, ferr
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *Conn) recvOnce(fd int, p []byte) (n, nctl, flags int, err error) {
	for {
		if c.stream {
			n, err = unix.Read(fd, p)
		} else {
			n, nctl, flags, _, err = unix.Recvmsg(fd, p, c.rctl[:], unix.MSG_CMSG_CLOEXEC)
		}
		if err != unix.EINTR {
			return n, nctl, flags, err
		}
	}
}

// keepRights gives the descriptors in a control buffer to f. It goes on after an
// error so that none of them is left without an owner.
func (c *Conn) keepRights(control []byte, f *Files) error {
	if len(control) == 0 {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return fmt.Errorf("parse control message: %w", err)
	}
	for i := range msgs {
		if h := &msgs[i].Header; h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, perr := unix.ParseUnixRights(&msgs[i])
		err = errors.Join(err, perr, f.add(fds))
	}
	return err
}

func appendRights(b []byte, fds []int) []byte {
	if len(fds) == 0 {
		return nil
	}
	return append(b, unix.UnixRights(fds...)...)
}

// send writes once. A peer that is gone is an error, not a signal.
func (c *Conn) send(p, control []byte) (n int, err error) {
	werr := c.raw.Write(func(fd uintptr) bool {
		n, err = c.sendOnce(int(fd), p, control)
		return !errors.Is(err, unix.EAGAIN)
	})
	if werr != nil {
		return 0, werr
	}
	return n, err
}

func (c *Conn) sendOnce(fd int, p, control []byte) (n int, err error) {
	for {
		if c.stream {
			n, err = unix.Write(fd, p)
		} else {
			n, err = unix.SendmsgN(fd, p, control, nil, unix.MSG_NOSIGNAL)
		}
		if err != unix.EINTR {
			return n, err
		}
	}
}
