package file

import (
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

const (
	modePunch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	modeZero  = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE

	// maxAgain is how often EAGAIN is taken for "once more": there was no room for the
	// call at the moment. Engines that can make a pause before it, so that it is a second
	// and more of patience.
	maxAgain   = 1000
	againPause = time.Millisecond
)

type callKind uint8

const (
	callRead callKind = iota
	callWrite
	callZeros // a write from memory of our own
	callAllocate
	callSync
)

// call is a system call to make.
type call struct {
	kind callKind
	iov  []unix.Iovec // of reads and writes
	off  int64        // in the file
	n    int64        // length of an allocate
	mode uint32       // of an allocate
	rwf  uint32       // flags of reads and writes
}

// do makes the call, and returns its count or a negative errno.
func (c *call) do(fd int) int32 {
	var err error
	switch c.kind {
	case callRead:
		return preadv2(fd, c.iov, c.off, c.rwf)
	case callWrite, callZeros:
		return pwritev2(fd, c.iov, c.off, c.rwf)
	case callAllocate:
		err = unix.Fallocate(fd, c.mode, c.off, c.n)
	case callSync:
		err = unix.Fdatasync(fd)
	}
	if errno, ok := err.(unix.Errno); ok {
		return -int32(errno)
	}
	return 0
}

// op takes one request through the system calls that it needs, one at a time. An
// engine makes the call that begin or advance has left in call and passes the
// result to advance, until one of them says that the request is complete:
//
//	Read, Write   transfer -> transfer (the rest) -> ... -> complete
//	Discard       punch -> [sync if FUA] -> complete
//	WriteZeroes   punch | zero range -> [sync if FUA] -> complete
//	either            '-> not supported -> write zeros -> ... -> [sync] -> complete
//	Flush         sync -> complete
type op struct {
	dev   *backing
	index uint64 // among the queue's operations
	req   *blockdev.Request
	call  call
	at    cursor // the next byte in the request's buffers
	left  int64  // bytes from there on
	again int
	// pausing: the engine has a pause under way for it, and not the call.
	pausing bool
	err     error
}

// begin starts a request that passed Check. It tells whether it is complete.
func (o *op) begin(r *blockdev.Request) bool {
	o.req, o.err, o.again = r, nil, 0
	o.at, o.left = cursor{}, r.Length
	o.call.off, o.call.rwf = o.dev.offset+r.Offset, 0
	if r.Op != blockdev.Read && o.dev.cut.Load() {
		return o.end(unix.EIO)
	}
	if r.Op == blockdev.Flush {
		return o.sync()
	}
	if r.Length == 0 {
		return true
	}
	switch r.Op {
	case blockdev.Read:
		o.transfer(callRead)
	case blockdev.Write:
		if r.FUA {
			o.call.rwf = unix.RWF_DSYNC
		}
		o.transfer(callWrite)
	case blockdev.Discard:
		o.allocate(modePunch)
	case blockdev.WriteZeroes:
		return o.zero()
	}
	return false
}

func (o *op) transfer(kind callKind) {
	o.call.kind = kind
	o.call.iov = o.at.fill(o.call.iov[:0], o.req.Buffers, max(1, int64(o.dev.align.offset)))
}

func (o *op) allocate(mode uint32) {
	o.call.kind, o.call.mode, o.call.n = callAllocate, mode, o.left
}

func (o *op) zero() bool {
	switch {
	case o.req.MayUnmap && o.dev.punches:
		o.allocate(modePunch)
	case !o.dev.noZeroRange.Load():
		o.allocate(modeZero)
	default:
		return o.writeZeros()
	}
	return false
}

func (o *op) writeZeros() bool {
	mem, err := zeros()
	if err != nil {
		return o.end(err)
	}
	o.call.kind = callZeros
	o.call.iov = fillZeros(o.call.iov[:0], mem, o.left)
	return false
}

func (o *op) sync() bool {
	if o.dev.lost.Load() {
		return o.end(unix.EIO)
	}
	o.call.kind = callSync
	return false
}

// advance takes the result of the call, a count or a negative errno. It tells
// whether the request is complete.
func (o *op) advance(res int32) bool {
	if res < 0 {
		return o.failed(unix.Errno(-res))
	}
	o.again = 0
	switch o.call.kind {
	case callSync:
		return o.end(nil)
	case callAllocate:
		return o.erased()
	}
	return o.moved(int64(res))
}

// moved goes on after n bytes of a transfer.
func (o *op) moved(n int64) bool {
	if direct := int64(o.dev.align.offset); n == 0 || direct != 0 && n%direct != 0 {
		// The end of the file. Under direct I/O it may lie within a block. A write would
		// make the file long again, with zeros where data was.
		if o.call.kind == callRead {
			o.dev.cut.Store(true)
			return o.end(blockdev.ErrShort)
		}
		return o.end(unix.EIO)
	}
	o.left -= n
	o.call.off += n
	if o.call.kind == callZeros {
		if o.left == 0 {
			return o.erased()
		}
		return o.writeZeros()
	}
	if o.left == 0 {
		return o.end(nil)
	}
	o.at.advance(o.req.Buffers, n)
	o.transfer(o.call.kind)
	return false
}

// erased goes on after a Discard or WriteZeroes.
func (o *op) erased() bool {
	if o.req.FUA {
		return o.sync()
	}
	return o.end(nil)
}

func (o *op) failed(errno unix.Errno) bool {
	switch {
	case errno == unix.EINTR:
		return false
	case errno == unix.EAGAIN && o.again < maxAgain:
		o.again++
		return false
	case o.call.kind == callAllocate && cannot(errno):
		return o.withoutAllocate()
	case o.syncs(errno):
		o.dev.lost.Store(true)
	}
	return o.end(errno)
}

// syncs tells whether a failure of the call may be that of earlier writes, of which
// the kernel tells once. EFAULT is about the submitter's memory.
//
// A write with RWF_DSYNC is followed by an fsync in the kernel, whose error takes the place
// of the count (generic_write_sync), under direct I/O too: it flushes the whole cache of a
// disk, and is given what the page cache of the file has to report. There is no telling
// that error from the write's own. But what a write finds no space for fails before that,
// and is mended by making space: direct I/O leaves nothing of ours in the page cache that
// could lack space later.
func (o *op) syncs(errno unix.Errno) bool {
	switch {
	case errno == unix.EFAULT:
		return false
	case o.call.kind == callSync:
		return true
	case o.call.kind != callWrite || o.call.rwf&unix.RWF_DSYNC == 0:
		return false
	}
	return o.dev.align.mem == 0 || !wantsSpace(errno)
}

func wantsSpace(errno unix.Errno) bool {
	return errno == unix.ENOSPC || errno == unix.EDQUOT || errno == unix.EFBIG
}

// cannot tells whether an errno of fallocate means that it does not do this here.
func cannot(errno unix.Errno) bool {
	return errno == unix.EOPNOTSUPP || errno == unix.ENOSYS || errno == unix.EINVAL || errno == unix.ENODEV
}

// withoutAllocate goes on where fallocate does not work, though it did when it was
// probed: zeros can be written, and they are what a discard has to leave.
func (o *op) withoutAllocate() bool {
	if o.call.mode == modeZero {
		o.dev.noZeroRange.Store(true)
	} else if !o.dev.noZeroRange.Load() {
		o.allocate(modeZero)
		return false
	}
	return o.writeZeros()
}

func (o *op) end(err error) bool {
	o.err = err
	return true
}
