package memory

import "errors"

var (
	// ErrEmpty: a region of size zero.
	ErrEmpty = errors.New("memory region is empty")
	// ErrWraps: an address, or the offset in the file, plus the size overflows.
	ErrWraps = errors.New("memory region wraps around the address space")
	// ErrOverlap: a region overlaps another one, or is there already.
	ErrOverlap = errors.New("memory region overlaps another one")
	// ErrTooMany: the table has no slot left.
	ErrTooMany = errors.New("too many memory regions")
	// ErrBeyondFile: the file is shorter than offset + size.
	ErrBeyondFile = errors.New("memory region reaches beyond the end of its file")
	// ErrNotFound: no region has these addresses and this size.
	ErrNotFound = errors.New("no such memory region")
	// ErrFileCount: not exactly one file descriptor for each region.
	ErrFileCount = errors.New("number of file descriptors differs from number of memory regions")
	// ErrUnmapped: an address range is not, or not as a whole, in guest memory.
	ErrUnmapped = errors.New("address is outside guest memory")
	// ErrTooManyPieces: a buffer is scattered over more regions than there is room
	// for pieces.
	ErrTooManyPieces = errors.New("buffer lies in too many pieces")
)
