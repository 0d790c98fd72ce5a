package eventfd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// one is the value that a signal adds, in the host's byte order. It is never written.
var one = uint64(1)

func write(fd int) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 8)
	return errno
}

func read(fd int) unix.Errno {
	var count uint64
	_, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&count)), 8)
	return errno
}
