package virtqueue

import "errors"

// Errors of [New].
var (
	// ErrSize: not a power of two, or more than 32768.
	ErrSize = errors.New("queue size is not a power of two up to 32768")
	// ErrAlignment: a part of the ring does not start where clause 2.7 wants it to.
	ErrAlignment = errors.New("part of the virtqueue is misaligned")
	// ErrLength: a part of the ring is not as long as the queue size asks for.
	ErrLength = errors.New("part of the virtqueue has the wrong length")
)

// Errors after which the ring is broken: nothing more can be taken from it.
var (
	// ErrAvailIdx: the driver's index ran ahead by more than the queue size.
	ErrAvailIdx = errors.New("avail index is more than the queue size ahead")
	// ErrHead: an avail ring entry names no descriptor.
	ErrHead = errors.New("head of a chain is outside the descriptor table")
)

// Errors of a chain.
var (
	// ErrNext: the next field names no descriptor of the table.
	ErrNext = errors.New("next descriptor is outside the table")
	// ErrTooLong: the chain has more descriptors than its table, or loops.
	ErrTooLong = errors.New("descriptor chain is too long or loops")
	// ErrOrder: a readable descriptor follows a writable one.
	ErrOrder = errors.New("readable descriptor after a writable one")
	// ErrIndirect: an indirect descriptor, and the feature was not negotiated.
	ErrIndirect = errors.New("indirect descriptor without the feature")
	// ErrIndirectNext: an indirect descriptor that has a next one.
	ErrIndirectNext = errors.New("indirect descriptor with a next one")
	// ErrNested: an indirect descriptor in an indirect table.
	ErrNested = errors.New("indirect descriptor in an indirect table")
	// ErrIndirectLength: an indirect table that is empty, no multiple of 16 bytes or
	// too long.
	ErrIndirectLength = errors.New("indirect table has a bad length")
	// ErrAddress: a buffer or an indirect table is not in guest memory.
	ErrAddress = errors.New("buffer is outside guest memory")
	// ErrPieces: the chain is scattered over more pieces of memory than the limit.
	ErrPieces = errors.New("buffers of the chain lie in too many pieces")
)
