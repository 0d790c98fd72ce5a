package file

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

// alignment is what direct I/O asks for, in bytes; zero if it is not used.
type alignment struct {
	mem    int // of each buffer's address and length
	offset int // of file offsets and total lengths
}

const pageSize = 4096

// chooseDirect switches direct I/O on if it is wanted and possible.
func (b *backing) chooseDirect(o Options) error {
	if o.Direct == DirectOff {
		b.directText = "buffered"
		return nil
	}
	if b.inMemory && o.Direct == DirectAuto {
		b.directText = "in memory"
		return nil
	}
	err := b.tryDirect()
	if err == nil {
		b.directText = fmt.Sprintf("direct (memory aligned to %d, offsets to %d)", b.align.mem, b.align.offset)
		return nil
	}
	if errOff := b.setDirect(false); errOff != nil {
		return fmt.Errorf("switch direct I/O off: %w", errOff)
	}
	if o.Direct == DirectOn {
		return fmt.Errorf("use direct I/O: %w", err)
	}
	b.directText = "buffered (" + err.Error() + ")"
	return nil
}

func (b *backing) tryDirect() error {
	wanted, err := b.alignments()
	if err != nil {
		return err
	}
	if err := b.setDirect(true); err != nil {
		return fmt.Errorf("the file system refuses O_DIRECT: %w", err)
	}
	for _, a := range wanted {
		if err = b.fits(a); err == nil {
			b.align = a
			return nil
		}
	}
	return err
}

// alignments are the candidates: what the kernel says, or what is usual.
func (b *backing) alignments() ([]alignment, error) {
	var st unix.Statx_t
	err := unix.Statx(b.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 {
		return []alignment{{512, 512}, {pageSize, pageSize}}, nil
	}
	if st.Dio_offset_align == 0 {
		return nil, fmt.Errorf("the file system has no direct I/O for this file: %w", blockdev.ErrNotSupported)
	}
	// At least 4: what fits in the buffers of one system call is then whole blocks.
	return []alignment{{max(4, int(st.Dio_mem_align)), int(st.Dio_offset_align)}}, nil
}

// fits tells whether the device can be used with an alignment, by a trial.
func (b *backing) fits(a alignment) error {
	if int64(a.offset) > b.unit || b.offset%int64(a.offset) != 0 || a.mem > pageSize {
		return fmt.Errorf("direct I/O needs blocks of %d bytes, the device has %d at offset %d: %w",
			a.offset, b.unit, b.offset, blockdev.ErrMisaligned)
	}
	// The trial's memory is aligned to what is asked for and no more.
	mem, err := unix.Mmap(-1, 0, 3*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	start := a.mem % pageSize
	_, err = unix.Pread(b.fd, mem[start:start+int(b.unit)], b.offset)
	if err != nil {
		err = fmt.Errorf("a direct read failed: %w", err)
	}
	return errors.Join(err, unix.Munmap(mem))
}

func (b *backing) setDirect(on bool) error {
	flags, err := unix.FcntlInt(uintptr(b.fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	flags &^= unix.O_DIRECT
	if on {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(uintptr(b.fd), unix.F_SETFL, flags)
	return err
}
