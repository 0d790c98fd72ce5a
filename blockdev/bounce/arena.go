package bounce

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// arena is bounce memory outside the Go heap, page-aligned.
type arena []byte

const hugePage = 2 << 20

func newArena(size int, hugePages bool) (arena, error) {
	if hugePages {
		size = (size + hugePage - 1) &^ (hugePage - 1)
	}
	mem, err := mapArena(size, hugePages)
	if err != nil {
		return nil, fmt.Errorf("map bounce memory: %w", err)
	}
	if err := unix.Madvise(mem, unix.MADV_DONTDUMP); err != nil {
		err = fmt.Errorf("keep bounce memory out of core dumps: %w", err)
		return nil, errors.Join(err, arena(mem).free())
	}
	return mem, nil
}

// mapArena takes huge pages from the kernel's pool if it has enough, else what it makes
// of small ones by itself.
func mapArena(size int, hugePages bool) ([]byte, error) {
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	if hugePages {
		if mem, err := unix.Mmap(-1, 0, size, prot, flags|unix.MAP_HUGETLB|unix.MAP_HUGE_2MB); err == nil {
			return mem, nil
		}
	}
	mem, err := unix.Mmap(-1, 0, size, prot, flags|unix.MAP_NORESERVE)
	if err == nil && hugePages {
		_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	}
	return mem, err
}

func (a arena) free() error {
	if err := unix.Munmap(a); err != nil {
		return fmt.Errorf("unmap bounce memory: %w", err)
	}
	return nil
}
