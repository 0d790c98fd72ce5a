package luks

import (
	"fmt"
	"os"
	"syscall"
)

// scratch is one page of memory for key blocks: outside the Go heap, locked, not in
// core dumps.
type scratch []byte

// madvDontDump is the kernel's MADV_DONTDUMP, the same on every architecture that Go
// runs on. Package syscall lacks it on amd64 and two others.
const madvDontDump = 16

func newScratch() (scratch, error) {
	b, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map scratch page: %w", err)
	}
	s := scratch(b)
	if err := syscall.Mlock(b); err != nil {
		s.free()
		return nil, fmt.Errorf("lock scratch page (raise the limit of locked memory, ulimit -l): %w", err)
	}
	if err := syscall.Madvise(b, madvDontDump); err != nil {
		s.free()
		return nil, fmt.Errorf("keep scratch page out of core dumps: %w", err)
	}
	return s, nil
}

// free wipes the page and gives it back.
func (s scratch) free() {
	clear(s)
	// Only a range that is not mapped fails.
	_ = syscall.Munmap(s)
}
