package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/luks"
)

// The lock file has two ranges, as the backing file has (blockdev/file): the right to
// use the disk, and the claim that those share who use it or stand by to.
const claimAt = 1 << 62

func lockRange(kind int16, start, length int64) *unix.Flock_t {
	return &unix.Flock_t{Type: kind, Start: start, Len: length}
}

// share lets others stand by for a disk that was acquired.
func (l *lease) share() error {
	return unix.FcntlFlock(l.f.Fd(), unix.F_OFD_SETLK, lockRange(unix.F_RDLCK, claimAt, 0))
}

// standBy takes the claim to a disk, also to one that another export uses.
func (c *Catalogue) standBy(name string) (*lease, error) {
	f, err := os.OpenFile(c.lockPath(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	l := c.newLease(name, f)
	if err := l.share(); err != nil {
		f.Close()
		return nil, c.lockFailed(name, err)
	}
	return l, nil
}

func (l *lease) take() error {
	return unix.FcntlFlock(l.f.Fd(), unix.F_OFD_SETLK, lockRange(unix.F_WRLCK, 0, claimAt))
}

func (l *lease) yield() error {
	return unix.FcntlFlock(l.f.Fd(), unix.F_OFD_SETLK, lockRange(unix.F_UNLCK, 0, claimAt))
}

// handover is what a backing store does whose lock can go to another process.
type handover interface {
	Take() error
	Release() error
}

// proof is what must still be true of a container when it is taken over.
type proof struct {
	file *os.File // to read the header from; nil for a disk without one
	uuid string
}

// remember keeps a way to the header that needs no path later.
func (d *Disk) remember(path string, h *luks.Header) (err error) {
	d.proof.uuid = h.UUID()
	d.proof.file, err = openStore(path, os.O_RDONLY)
	return err
}

// Holds tells whether this process has the right to use the disk: always, but between
// Release and Take, and before the first Take of a disk that was opened with Standby.
func (d *Disk) Holds() bool { return d.holds.Load() }

// Take takes the right to use the disk, or fails with ErrInUse. What another process
// did to the disk meanwhile is found out: its container must be the same, and the
// device grows if the disk has.
func (d *Disk) Take() error {
	if d.Holds() {
		return nil
	}
	if err := d.lease.take(); err != nil {
		return d.catalogue.lockFailed(d.Record.Name, err)
	}
	if err := d.takeStore(); err != nil {
		return errors.Join(err, d.lease.yield())
	}
	d.holds.Store(true)
	return nil
}

func (d *Disk) takeStore() error {
	if d.lower == nil {
		return nil
	}
	if err := d.lower.Take(); err != nil {
		if errors.Is(err, blockdev.ErrBusy) {
			err = fmt.Errorf("%w by another host or state directory: %w", ErrInUse, err)
		}
		return fmt.Errorf("disk %s: %w", d.Record.Name, err)
	}
	if err := d.recheck(); err != nil {
		return errors.Join(fmt.Errorf("disk %s: %w", d.Record.Name, err), d.lower.Release())
	}
	return nil
}

func (d *Disk) recheck() error {
	if d.proof.file == nil {
		return nil
	}
	h, err := readStable(d.proof.file)
	if err != nil {
		return fmt.Errorf("read header again: %w", err)
	}
	if h.UUID() != d.proof.uuid {
		return fmt.Errorf("%w: the container was replaced", ErrMismatch)
	}
	t, err := h.Token()
	if err != nil {
		return err
	}
	if t.Disk.Size > d.Record.SizeBytes {
		if err := blockdev.Grow(d.Device, t.Disk.Size); err != nil {
			return err
		}
		d.Record.SizeBytes = t.Disk.Size
	}
	return matches(d.Record, h)
}

// Release gives the disk to whoever stands by for it, once all that was written is
// durable and to be seen from other hosts. If it fails the right is kept. No queue of
// the device may be open.
func (d *Disk) Release() error {
	if !d.Holds() {
		return nil
	}
	if d.lower != nil {
		if err := d.lower.Release(); err != nil {
			return fmt.Errorf("disk %s: %w", d.Record.Name, err)
		}
	}
	d.holds.Store(false)
	return d.lease.yield()
}
