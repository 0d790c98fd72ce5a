package uring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxTransfer is what one read or write moves at most (MAX_RW_COUNT with 4 KiB pages).
const maxTransfer = 0x7ffff000

// vector names the memory of a transfer: a single buffer by itself, which spares
// the kernel the copy of the array, more by their array.
func (s *SQE) vector(single, vectored uint8, iov []unix.Iovec) {
	if len(iov) == 1 {
		s.opcode = single
		s.buffer(&iov[0])
		return
	}
	s.opcode = vectored
	s.addr = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(iov))))
	s.len = uint32(len(iov))
}

func (s *SQE) buffer(b *unix.Iovec) {
	s.addr = uint64(uintptr(unsafe.Pointer(b.Base)))
	s.len = uint32(min(b.Len, maxTransfer))
}

func (s *SQE) timespec(t *unix.Timespec) {
	s.addr, s.len = uint64(uintptr(unsafe.Pointer(t))), 1
}
