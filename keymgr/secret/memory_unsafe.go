package secret

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is a mapping: guard page, locked pages, guard page. It knows its data by
// address only, so that a printer which walks structures through reflection finds no
// bytes to print.
type memory struct {
	base    unsafe.Pointer // of the first guard page
	mapped  uintptr        // length with both guard pages
	data    unsafe.Pointer // Align-aligned, ends within Align of the second guard
	size    int
	backing Backing
}

// munmap is a variable so that a test sees the memory as Destroy leaves it.
var munmap = unix.MunmapPtr

// allocate maps a buffer on one kind of memory.
func allocate(size int, backing Backing) (*memory, error) {
	page := uintptr(os.Getpagesize())
	body := (uintptr(size) + page - 1) &^ (page - 1)
	base, err := unix.MmapPtr(-1, 0, nil, body+2*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", body+2*page, err)
	}
	m := &memory{base: base, mapped: body + 2*page, size: size, backing: backing}
	m.data = unsafe.Add(base, page+body-alignUp(uintptr(size)))
	if err := lock(unsafe.Add(base, page), body, backing); err != nil {
		return nil, errors.Join(err, munmap(base, m.mapped))
	}
	return m, nil
}

// lock puts locked pages in the place of reserved ones.
func lock(at unsafe.Pointer, length uintptr, backing Backing) error {
	place := placeAnonymous
	if backing == MemfdSecret {
		place = placeSecret
	}
	if err := place(at, length); err != nil {
		return err
	}
	pages := unsafe.Slice((*byte)(at), length)
	for _, advice := range []int{unix.MADV_DONTDUMP, unix.MADV_DONTFORK} {
		if err := unix.Madvise(pages, advice); err != nil {
			return fmt.Errorf("advise kernel on secret memory: %w", err)
		}
	}
	return nil
}

func placeAnonymous(at unsafe.Pointer, length uintptr) error {
	pages := unsafe.Slice((*byte)(at), length)
	if err := unix.Mprotect(pages, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return fmt.Errorf("open secret memory: %w", err)
	}
	if err := unix.Mlock(pages); err != nil {
		return lockError(length, err)
	}
	return nil
}

// placeSecret maps memory of memfd_secret, which the kernel locks by itself. Nobody
// else needs the descriptor: the mapping keeps the memory.
func placeSecret(at unsafe.Pointer, length uintptr) error {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create secret memory: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(length)); err != nil {
		return fmt.Errorf("size secret memory: %w", err)
	}
	_, err = unix.MmapPtr(fd, 0, at, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		return lockError(length, err)
	}
	return nil
}

// lockError says how to mend a limit. The kernel reports it as EAGAIN (mmap), ENOMEM
// (mlock above the limit) or EPERM (a limit of zero).
func lockError(length uintptr, err error) error {
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("lock %d bytes of memory: %w", length, err)
	}
	var r unix.Rlimit
	if e := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r); e != nil {
		return fmt.Errorf("read limit on locked memory: %w", e)
	}
	return fmt.Errorf("lock %d bytes of memory: %w (%w): RLIMIT_MEMLOCK is %d bytes; raise it with `ulimit -l`, "+
		"LimitMEMLOCK= in the systemd unit or memlock in /etc/security/limits.conf, or grant CAP_IPC_LOCK",
		length, ErrLimit, err, r.Cur)
}

func (m *memory) bytes() []byte {
	return unsafe.Slice((*byte)(m.data), m.size)
}

// free wipes the memory and gives it back.
func (m *memory) free() error {
	clear(m.bytes())
	return munmap(m.base, m.mapped)
}

func alignUp(n uintptr) uintptr { return (n + Align - 1) &^ (Align - 1) }
