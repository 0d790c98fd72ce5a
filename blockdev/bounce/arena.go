package bounce

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// arena is bounce memory outside the Go heap.
type arena struct {
	mem     []byte // page-aligned
	mapping []byte // what mem lies in
}

const hugePage = 2 << 20

// newArena returns at least size bytes. Huge pages are those of the kernel's pool, if it
// is asked for them and has enough, else what the kernel makes of small ones by itself.
func newArena(size int, pool bool) (arena, error) {
	a, err := mapArena((size+hugePage-1)&^(hugePage-1), pool)
	if err != nil {
		return arena{}, fmt.Errorf("map bounce memory: %w", err)
	}
	if err := unix.Madvise(a.mapping, unix.MADV_DONTDUMP); err != nil {
		err = fmt.Errorf("keep bounce memory out of core dumps: %w", err)
		return arena{}, errors.Join(err, a.free())
	}
	return a, nil
}

func mapArena(size int, pool bool) (arena, error) {
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	if pool {
		if mem, err := unix.Mmap(-1, 0, size, prot, flags|unix.MAP_HUGETLB|unix.MAP_HUGE_2MB); err == nil {
			return arena{mem, mem}, nil
		}
	}
	// A huge page has to start at a multiple of its size, and a mapping need not.
	mapping, err := unix.Mmap(-1, 0, size+hugePage, prot, flags|unix.MAP_NORESERVE)
	if err != nil {
		return arena{}, err
	}
	mem := mapping[toAligned(mapping, hugePage):][:size:size]
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // not every kernel has them
	return arena{mem, mapping}, nil
}

func (a arena) free() error {
	if err := unix.Munmap(a.mapping); err != nil {
		return fmt.Errorf("unmap bounce memory: %w", err)
	}
	return nil
}
