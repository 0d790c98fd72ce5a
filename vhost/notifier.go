package vhost

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// notifier is a kick, call or error descriptor of the front-end. It need not be an
// eventfd: some pass pipes. A nil notifier is none at all.
type notifier struct{ fd int }

// newNotifier takes ownership of fd, also when it fails.
func newNotifier(fd int) (*notifier, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set descriptor non-blocking: %w", err)
	}
	return &notifier{fd}, nil
}

// waitFD is what poll(2) takes: -1 is passed over.
func (n *notifier) waitFD() int32 {
	if n == nil {
		return -1
	}
	return int32(n.fd)
}

var one = [8]byte{1}

// signal writes once. A descriptor that is full is signalled already, and one that
// the front-end closed is its loss.
func (n *notifier) signal() {
	if n == nil {
		return
	}
	for {
		if _, err := unix.Write(n.fd, one[:]); err != unix.EINTR {
			return
		}
	}
}

// clear takes what is there, and reports whether the descriptor is any use still.
func (n *notifier) clear(buf []byte) bool {
	k, err := unix.Read(n.fd, buf)
	return k > 0 || err == unix.EAGAIN || err == unix.EINTR
}

// close ignores the result: the descriptor is gone whatever close says, and the
// front-end's file is not ours to report on.
func (n *notifier) close() {
	if n != nil {
		_ = unix.Close(n.fd)
	}
}
