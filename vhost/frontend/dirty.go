package frontend

import (
	"errors"
	"fmt"
	"math/bits"

	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

// LogPageSize is what a bit of a dirty log stands for, in bytes.
const LogPageSize = 4096

// DirtyLog is the driver side of a dirty log: what QEMU keeps while it migrates.
type DirtyLog struct {
	// FD is its memfd and Bytes the mapped log: a bit for each page from address 0.
	FD    int
	Bytes []byte

	whole  []byte
	offset uint64
}

// NewDirtyLog makes a log for the pages below a guest-physical address, a multiple
// of 32 pages. It lies at an offset in its file that is a multiple of 4.
func NewDirtyLog(end, offset uint64) (*DirtyLog, error) {
	size := end / LogPageSize / 8
	if size == 0 || size%4 != 0 || end%LogPageSize != 0 || offset%4 != 0 {
		return nil, fmt.Errorf("dirty log up to %#x, at %d: %w", end, offset, ErrConfig)
	}
	fd, err := unix.MemfdCreate("sealblk-dirty-log", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create dirty log: %w", err)
	}
	l := &DirtyLog{FD: fd, offset: offset}
	if err := l.mmap(size); err != nil {
		return nil, errors.Join(fmt.Errorf("create dirty log: %w", err), unix.Close(fd))
	}
	return l, nil
}

func (l *DirtyLog) mmap(size uint64) (err error) {
	if err := unix.Ftruncate(l.FD, int64(l.offset+size)); err != nil {
		return err
	}
	l.whole, err = unix.Mmap(l.FD, 0, int(l.offset+size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err == nil {
		l.Bytes = l.whole[l.offset:]
	}
	return err
}

// Payload is that of SET_LOG_BASE.
func (l *DirtyLog) Payload() protocol.Log {
	return protocol.Log{Size: uint64(len(l.Bytes)), Offset: l.offset}
}

// Take takes out all marks and returns the addresses of their pages, in order.
func (l *DirtyLog) Take() (pages []uint64) {
	for off := 0; off < len(l.Bytes); off += 4 {
		for w := swapWord(l.Bytes, off); w != 0; w &= w - 1 {
			pages = append(pages, uint64(8*off+bits.TrailingZeros32(w))*LogPageSize)
		}
	}
	return pages
}

// Close frees the log. A back-end's own mapping lives on.
func (l *DirtyLog) Close() error { return errors.Join(unix.Munmap(l.whole), unix.Close(l.FD)) }
