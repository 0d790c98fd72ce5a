package uring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func setup(entries uint32, p *params) (int, unix.Errno) {
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	return int(fd), errno
}

// enter goes through the scheduler: a submission may do a good part of an
// operation before it returns.
func enter(fd int, submit, flags uint32) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), uintptr(submit), 0, uintptr(flags), 0, 0)
	return int(n), errno
}

func register(fd int, op uint32, arg unsafe.Pointer, n int) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(fd), uintptr(op), uintptr(arg), uintptr(n), 0, 0)
	return errno
}

func (r *Ring) registerFiles(fds []int32) unix.Errno {
	return register(r.fd, registerFiles, unsafe.Pointer(unsafe.SliceData(fds)), len(fds))
}

func (r *Ring) unregisterFiles() unix.Errno {
	return register(r.fd, unregisterFiles, nil, 0)
}

func (r *Ring) registerBuffers(bufs []unix.Iovec) unix.Errno {
	return register(r.fd, registerBuffers, unsafe.Pointer(unsafe.SliceData(bufs)), len(bufs))
}

func (r *Ring) probeOps(p *probe) unix.Errno {
	return register(r.fd, registerProbe, unsafe.Pointer(p), len(p.ops))
}
