package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

// Open opens the file or block device at path. The errors to tell apart are
// blockdev.ErrShort, blockdev.ErrBusy, and those of the system (fs.ErrNotExist,
// fs.ErrPermission).
func Open(path string, o Options) (*Device, error) {
	o, err := o.complete()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	for deadline := time.Now().Add(o.LockWait); ; time.Sleep(lockPause) {
		d, err := openOnce(path, o)
		if !errors.Is(err, blockdev.ErrBusy) || !time.Now().Before(deadline) {
			return d, err
		}
	}
}

// lockPause is the time between two attempts to get a lock.
const lockPause = 2 * time.Millisecond

func openOnce(path string, o Options) (*Device, error) {
	f, block, err := openPath(path, o)
	if err != nil {
		return nil, err
	}
	d, err := newDevice(f, block, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	return d, nil
}

// openPath opens the file and tells whether it is a block device.
func openPath(path string, o Options) (f *os.File, block bool, err error) {
	st, err := os.Stat(path) // first: to open a FIFO would wait for its other end
	if err != nil {
		return nil, false, fmt.Errorf("open backend: %w", err)
	}
	switch st.Mode().Type() {
	case 0:
	case fs.ModeDevice:
		block = true
	default:
		return nil, false, fmt.Errorf("open %s: it is neither a regular file nor a block device: %w", path, blockdev.ErrNotSupported)
	}
	flags := os.O_RDWR
	if o.ReadOnly {
		flags = os.O_RDONLY
	} else if block && o.Lock && !o.Standby {
		flags |= os.O_EXCL // refuses a device that is mounted or claimed by the kernel
	}
	f, err = os.OpenFile(path, flags, 0)
	if block && errors.Is(err, unix.EBUSY) {
		return nil, false, fmt.Errorf("open %s: mounted or claimed: %w", path, blockdev.ErrBusy)
	}
	if err != nil {
		return nil, false, fmt.Errorf("open backend: %w", err)
	}
	return f, block, nil
}

// newDevice takes f over once it succeeds.
func newDevice(f *os.File, block bool, o Options) (_ *Device, err error) {
	b := &backing{file: f, fd: int(f.Fd()), block: block, offset: o.Offset, unit: int64(o.LogicalBlockSize), ringEntries: maxRingEntries}
	if o.Lock {
		if err := b.lock(o); err != nil {
			return nil, err
		}
	}
	if err := b.measure(o); err != nil {
		return nil, err
	}
	if b.inMemory, err = isInMemory(b.fd, block); err != nil {
		return nil, err
	}
	if err := b.chooseDirect(o); err != nil {
		return nil, err
	}
	if err := b.chooseEngine(o.Engine); err != nil {
		return nil, err
	}
	b.mapStore()
	b.probeFeatures()
	return wrap(b, o.AlignedMemory)
}
