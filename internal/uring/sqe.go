package uring

import "golang.org/x/sys/unix"

// File names the file of an operation.
type File struct {
	fd    int32
	flags uint8
}

// FD is an open file descriptor.
func FD(fd int) File { return File{fd: int32(fd)} }

// Fixed is the file at an index of those passed to RegisterFiles.
func Fixed(index int) File { return File{fd: int32(index), flags: sqeFixedFile} }

func (s *SQE) set(op uint8, f File, data uint64) {
	*s = SQE{opcode: op, fd: f.fd, flags: f.flags, userData: data}
}

// Nop completes with 0.
func (s *SQE) Nop(data uint64) { s.set(opNop, File{fd: -1}, data) }

// Readv reads at off into iov, as preadv2 does, with its RWF_ flags. The result is
// the number of bytes.
func (s *SQE) Readv(f File, iov []unix.Iovec, off int64, rwf uint32, data uint64) {
	s.set(opReadv, f, data)
	s.vector(opRead, opReadv, iov)
	s.off, s.opFlags = uint64(off), rwf
}

// Writev writes iov at off, as pwritev2 does, with its RWF_ flags. The result is the
// number of bytes.
func (s *SQE) Writev(f File, iov []unix.Iovec, off int64, rwf uint32, data uint64) {
	s.set(opWritev, f, data)
	s.vector(opWrite, opWritev, iov)
	s.off, s.opFlags = uint64(off), rwf
}

// ReadFixed reads at off into b, which lies in the registered buffer index.
func (s *SQE) ReadFixed(f File, b *unix.Iovec, index uint16, off int64, rwf uint32, data uint64) {
	s.set(opReadFixed, f, data)
	s.buffer(b)
	s.off, s.opFlags, s.bufIndex = uint64(off), rwf, index
}

// WriteFixed writes b, which lies in the registered buffer index, at off.
func (s *SQE) WriteFixed(f File, b *unix.Iovec, index uint16, off int64, rwf uint32, data uint64) {
	s.set(opWriteFixed, f, data)
	s.buffer(b)
	s.off, s.opFlags, s.bufIndex = uint64(off), rwf, index
}

// Fdatasync is fdatasync(2).
func (s *SQE) Fdatasync(f File, data uint64) {
	s.set(opFsync, f, data)
	s.opFlags = fsyncDatasync
}

// Fallocate is fallocate(2) with its mode.
func (s *SQE) Fallocate(f File, mode uint32, off, length int64, data uint64) {
	s.set(opFallocate, f, data)
	s.off, s.addr, s.len = uint64(off), uint64(length), mode
}

// PollAdd completes once when one of the poll(2) events is there, with those that are.
func (s *SQE) PollAdd(f File, events uint16, data uint64) {
	s.set(opPollAdd, f, data)
	s.opFlags = uint32(events)
}

// Timeout completes with -ETIME when that long has passed.
func (s *SQE) Timeout(after *unix.Timespec, data uint64) {
	s.set(opTimeout, File{fd: -1}, data)
	s.timespec(after)
}

// Async has the kernel carry out the operation on a thread of its own, which may block:
// it does not try first whether that can be done without.
func (s *SQE) Async() { s.flags |= sqeAsync }
