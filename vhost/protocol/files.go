package protocol

import "golang.org/x/sys/unix"

// Files owns the descriptors that came with one message.
type Files struct {
	fds [MaxFiles]int
	n   int
}

// Len is the number of descriptors that came, taken or not.
func (f *Files) Len() int { return f.n }

// Take passes the ownership of descriptor i to the caller. It returns -1 for one
// that never came or was taken before.
func (f *Files) Take(i int) int {
	if i < 0 || i >= f.n {
		return -1
	}
	fd := f.fds[i]
	f.fds[i] = -1
	return fd
}

// CloseAll closes what was not taken and empties f.
func (f *Files) CloseAll() {
	for i := range f.n {
		if fd := f.Take(i); fd >= 0 {
			closeFD(fd)
		}
	}
	f.n = 0
}

// add takes ownership of fds. When they are too many it keeps what fits, so that
// CloseAll finds it, and closes the rest.
func (f *Files) add(fds []int) error {
	kept := copy(f.fds[f.n:], fds)
	f.n += kept
	if kept == len(fds) {
		return nil
	}
	for _, fd := range fds[kept:] {
		closeFD(fd)
	}
	return ErrTooManyFiles
}

// closeFD ignores the result: on Linux the descriptor is gone whatever close says,
// and the peer's file is not ours to report on.
func closeFD(fd int) { _ = unix.Close(fd) }
