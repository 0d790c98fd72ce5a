package file

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

// Two ranges of the file are locked, in place of its bytes there:
//
//	[0, claimAt)   the right to use it: one writer, or readers
//	[claimAt, ∞)   the claim: shared by all who use it or stand by to
//
// Who opens the file afresh wants both for itself, and then shares the claim. So the
// right can go from one that has a claim to another, and to nobody else in between.
const claimAt = 1 << 62

// lock takes the locks of a device that is opened.
func (b *backing) lock(o Options) error {
	b.locks, b.right = true, unix.F_WRLCK
	if o.ReadOnly {
		b.right = unix.F_RDLCK
	}
	if o.Standby {
		return lockError(b.setLock(unix.F_RDLCK, claimAt, 0))
	}
	if err := lockError(b.setLock(b.right, 0, 0)); err != nil {
		return err
	}
	b.holds = true
	return lockError(b.setLock(unix.F_RDLCK, claimAt, 0))
}

func lockError(err error) error {
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = blockdev.ErrBusy
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

func (b *backing) unlock() error {
	if !b.locks {
		return nil
	}
	b.locks, b.holds = false, false
	if err := b.setLock(unix.F_UNLCK, 0, 0); err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	return nil
}

func (b *backing) setLock(kind int16, start, length int64) error {
	return unix.FcntlFlock(uintptr(b.fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Whence: unix.SEEK_SET, Start: start, Len: length})
}

// Take takes the right to use the file back from whoever it was released to, or
// fails with ErrBusy. What the page cache holds is dropped: another host may have
// written since. The lock comes first, because to lock is what makes a network file
// system look again.
func (b *backing) Take() error {
	if !b.locks || b.holds {
		return nil
	}
	if err := lockError(b.setLock(b.right, 0, claimAt)); err != nil {
		return fmt.Errorf("take %s: %w", b.file.Name(), err)
	}
	if err := b.retake(); err != nil {
		return errors.Join(fmt.Errorf("take %s: %w", b.file.Name(), err), b.setLock(unix.F_UNLCK, 0, claimAt))
	}
	b.holds = true
	return nil
}

func (b *backing) retake() error {
	if err := b.dropCache(); err != nil {
		return err
	}
	size, _, err := b.geometry(b.block)
	if err == nil && b.capacity.Load() > size-b.offset {
		err = blockdev.ErrShort
	}
	return err
}

// Release makes all that was written durable and visible to other hosts, and gives
// the right to use the file to whoever has a claim and takes it. If it fails the
// right is kept. No queue may be open.
func (b *backing) Release() error {
	if !b.holds {
		return nil
	}
	if n := b.queues.Load(); n != 0 {
		return fmt.Errorf("release %s: %d queues are open: %w", b.file.Name(), n, blockdev.ErrBusy)
	}
	if err := b.settle(); err != nil {
		return fmt.Errorf("release %s: %w", b.file.Name(), err)
	}
	b.holds = false
	if err := b.setLock(unix.F_UNLCK, 0, claimAt); err != nil {
		return fmt.Errorf("release %s: %w", b.file.Name(), err)
	}
	return nil
}

func (b *backing) settle() error {
	if b.lost.Load() {
		return unix.EIO
	}
	if !b.info.ReadOnly {
		if err := unix.Fdatasync(b.fd); err != nil {
			b.lost.Store(true)
			return err
		}
	}
	return b.dropCache()
}

// dropCache is advice, but the kernel follows it for pages that are clean.
func (b *backing) dropCache() error {
	if err := unix.Fadvise(b.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("drop page cache: %w", err)
	}
	return nil
}
