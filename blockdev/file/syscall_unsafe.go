package file

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// preadv2 and pwritev2 take iovecs that their caller keeps; the wrappers of package
// unix allocate. They return a count or a negative errno.

func preadv2(fd int, iov []unix.Iovec, off int64, flags uint32) int32 {
	return transfer(unix.SYS_PREADV2, fd, iov, off, flags)
}

func pwritev2(fd int, iov []unix.Iovec, off int64, flags uint32) int32 {
	return transfer(unix.SYS_PWRITEV2, fd, iov, off, flags)
}

func transfer(trap uintptr, fd int, iov []unix.Iovec, off int64, flags uint32) int32 {
	// The offset is two words, of which a 64-bit kernel reads the first alone.
	n, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)),
		uintptr(off), uintptr(uint64(off)>>32), uintptr(flags))
	return result(n, errno)
}

// transferBriefly is transfer for a call that is known to be short: the scheduler is
// not told of it, which saves about as much time as moving 4 KiB takes.
func transferBriefly(trap uintptr, fd int, iov []unix.Iovec, off int64, flags uint32) int32 {
	n, _, errno := unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)),
		uintptr(off), uintptr(uint64(off)>>32), uintptr(flags))
	return result(n, errno)
}

func result(n uintptr, errno unix.Errno) int32 {
	if errno != 0 {
		return -int32(errno)
	}
	return int32(n)
}

func ioctlUint64(fd int, req uint) (uint64, error) {
	var v uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(&v))); errno != 0 {
		return 0, errno
	}
	return v, nil
}

// lockLimit is RLIMIT_MEMLOCK. prlimit(2), which package unix uses, could change the
// limits of other processes and is none of the calls that a worker may make.
func lockLimit() (uint64, error) {
	var limit unix.Rlimit
	if _, _, errno := unix.RawSyscall(unix.SYS_GETRLIMIT, unix.RLIMIT_MEMLOCK, uintptr(unsafe.Pointer(&limit)), 0); errno != 0 {
		return 0, errno
	}
	return limit.Cur, nil
}
