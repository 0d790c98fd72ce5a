package bounce

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// arena is bounce memory outside the Go heap, page-aligned.
type arena []byte

func newArena(size int, hugePages bool) (arena, error) {
	const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, fmt.Errorf("map bounce memory: %w", err)
	}
	if err := unix.Madvise(mem, unix.MADV_DONTDUMP); err != nil {
		err = fmt.Errorf("keep bounce memory out of core dumps: %w", err)
		return nil, errors.Join(err, arena(mem).free())
	}
	if hugePages {
		// A kernel without huge pages serves small ones.
		_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	}
	return mem, nil
}

func (a arena) free() error {
	if err := unix.Munmap(a); err != nil {
		return fmt.Errorf("unmap bounce memory: %w", err)
	}
	return nil
}
