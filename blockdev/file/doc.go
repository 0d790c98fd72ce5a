// Package file is a block device over a regular file or a host block device.
//
// # Contract
//
// [Open] never alters what it opens: it does not create, extend or format. The
// device is the Size bytes at Offset of the file; the file has to have them all
// when it is opened, and a read that meets the end of a file that was cut later
// fails with blockdev.ErrShort instead of reading as zeros, and from then on every
// request but reads with EIO. (Of a file that is mapped, see below, it is the page
// with the end that still reads as zeros, and writes are not stopped by the others.)
// Requests that the kernel serves in part are continued until they are whole, and those
// that it has no room for (EAGAIN) are tried again for a second or so.
//
//	Read, Write   preadv2, pwritev2 in pieces of at most IOV_MAX buffers
//	FUA           RWF_DSYNC for Write, a following fdatasync for the others
//	Flush         fdatasync
//	Discard       fallocate PUNCH_HOLE, after which the range reads as zeros
//	WriteZeroes   fallocate PUNCH_HOLE with MayUnmap, else ZERO_RANGE; where the
//	              file system has neither, zeros are written
//
// Discard is offered where a probe found that holes can be punched. A host block
// device that can discard and cannot make zeros of it (BLKDISCARD) does not qualify:
// what it leaves may be the old data.
//
// # Engines
//
// Three engines run the same requests: io_uring, one system call for a batch, no
// lock and no allocation on the way; a bounded pool of goroutines for each
// queue with preadv2 and pwritev2, for hosts without io_uring; and the same calls made
// inline, on the queue's thread. Auto takes the last for a file whose data is in memory
// (tmpfs, ramfs), where a call takes less than it takes to have it made elsewhere
// (docs/performance.md has the figures), else io_uring if a probe of it succeeds.
// [Device.Describe] says what was chosen and why.
//
// With io_uring the file is registered, and so is the memory that the submitter names
// in blockdev.QueueConfig, where locked memory is not limited (RLIMIT_MEMLOCK). Rings
// count against that limit too (Linux 6.14), which is one for all processes of a user:
// if it gives out, a queue that was to have one by Auto gets threads.
//
// # Files in memory
//
// A file in memory that is served inline is mapped, and its queues are blockdev.Viewers,
// for reading. Only pages that hold data are shown: to look at a hole through a mapping
// would fill it. Writes are system calls, of which a process that is killed leaves each
// page done or not begun.
//
// # Direct I/O
//
// The page cache is bypassed (O_DIRECT) if the kernel's alignment for it, asked by
// statx (STATX_DIOALIGN, Linux 6.1) or found by trying, is no larger than the
// logical block size and divides Offset. Memory that is not aligned then goes
// through package bounce; a submitter whose buffers are always aligned logical
// blocks says so in the options and saves that layer.
//
// # Threading
//
// As package blockdev says. A queue's goroutine need not be locked to a thread. A
// thread must not exit while requests that it submitted through io_uring are in
// flight.
//
// # Failure model
//
// A failed fdatasync means that data may be gone, of any write before it: the page
// cache or the cache of a disk has dropped it, and says so only once. From then on
// every Flush of the device, on any queue, fails with EIO until the device is opened
// again: no later success may hide the loss. The same holds for a failed Write with
// FUA, because it can be what that one report was given to: the kernel syncs within that
// write. Under direct I/O, want of space is an error of the write alone. If the kernel
// breaks io_uring itself under a queue (not: an operation on it), the fate of what
// is in flight cannot be known, and the queue panics.
//
// # Locks
//
// Options.Lock takes an open-file-description lock on the whole file, shared for
// read-only devices, and O_EXCL on a host block device that is opened for writing.
// It excludes other users of this package, and QEMU, whose image locks are byte
// ranges of the same kind. It is released by Close or when the process ends.
//
// The kernel goes on with what a killed process has in flight, and lets go of its lock
// only after that. So whoever has the lock knows that no write of its predecessor is
// still to come, which would undo a later one. That may take a moment: LockWait.
//
// The lock can be handed over, from one host to another where the file system locks
// across hosts: [Device.Release] flushes, drops the page cache and gives the lock up
// but for a claim, which keeps all away but those that were opened with
// Options.Standby; [Device.Take] takes it. A host block device that was opened with
// Standby is not claimed with O_EXCL, because the other user may be on this host.
//
// Sources: preadv2(2), fallocate(2), fcntl(2) "Open file description locks",
// statx(2), open(2) "O_DIRECT", linux/fs.h.
package file
