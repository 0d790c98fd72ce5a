package blockdev

// Op is the kind of a request.
type Op uint8

const (
	// Read fills the buffers from the device.
	Read Op = iota
	// Write stores the buffers on the device.
	Write
	// Flush makes every write that completed before it durable. Offset, length and
	// buffers are not used.
	Flush
	// Discard tells that the range is not needed any more. It has no buffers. The
	// range reads as zeros afterwards, unless the device was told to ignore discards.
	Discard
	// WriteZeroes makes the range read as zeros. It has no buffers.
	WriteZeroes
)

// Request is one operation: a slot that its submitter allocates once and uses
// again and again.
type Request struct {
	Op Op
	// FUA asks that the data of this request is durable when it completes
	// (write-through). It applies to Write, Discard and WriteZeroes.
	FUA bool
	// MayUnmap allows WriteZeroes to deallocate the range.
	MayUnmap bool
	// Offset and Length, in bytes.
	Offset int64
	Length int64
	// Buffers hold the data of a Read or Write; their lengths add up to Length.
	// They may be memory that a guest changes at any time: a layer reads each byte
	// of a write's buffers at most once and never reads back what it put into a
	// read's.
	Buffers [][]byte

	// Err is set by the queue before Poll returns the request.
	Err error
	// Tag is the submitter's own; queues do not touch it.
	Tag uint64
}

// Features are what a device can do beyond Read, Write and Flush.
type Features struct {
	Discard     bool
	WriteZeroes bool
	// ZeroesUnmap: WriteZeroes with MayUnmap may deallocate.
	ZeroesUnmap bool
}

// Info describes a device. It does not change while the device is open, but for
// Capacity, which may grow.
type Info struct {
	// Capacity in bytes, a multiple of LogicalBlockSize.
	Capacity int64
	// LogicalBlockSize is the unit of offsets and lengths, in bytes: 512 to 4096, a
	// power of two.
	LogicalBlockSize int
	// PhysicalBlockSize is the smallest write, in bytes, that needs no
	// read-modify-write below. At least LogicalBlockSize, a power of two.
	PhysicalBlockSize int
	ReadOnly          bool
	Features          Features
}

// QueueConfig is what a queue has to be able to hold.
type QueueConfig struct {
	// Depth is the number of requests that the submitter may have in flight. Submit
	// accepts that many without fail.
	Depth int
	// Memory is where many of the buffers will lie, if the submitter knows: pieces that
	// stay mapped until the queue is closed. A queue may pin them, to spare itself that
	// work for each request. It need not be given.
	Memory [][]byte
}

// Device is an open block device. Its methods may be called from any goroutine.
type Device interface {
	Info() Info
	// OpenQueue makes a queue for one goroutine.
	OpenQueue(QueueConfig) (Queue, error)
	// Close frees the device. Its queues must be closed before.
	Close() error
}

// Queue is one submitter's way into a device. Its methods are called by one
// goroutine at a time; that goroutine is locked to its thread where the
// implementation needs it to be.
type Queue interface {
	// Submit hands over requests. It never blocks on I/O and keeps no reference to
	// the slice. A request that is refused completes with its error like any other.
	Submit(reqs ...*Request)
	// Push hands what was submitted to the kernel, in one call where that is
	// possible. Submit may do so earlier.
	Push()
	// Poll stores completed requests in done and returns how many. It does not
	// wait. It also does the work that completions make possible (the next part of
	// a large request), so it is called until it returns 0 before a wait.
	Poll(done []*Request) int
	// WaitFD is a file descriptor that polls readable (POLLIN) when Poll may have
	// work, or -1 for a queue whose requests are complete when Push returns. The
	// queue owns it, and clears its readiness in Poll.
	WaitFD() int
	// Close frees the queue. Requests in flight are given up: they never complete,
	// and what they were to write may be written or not. When Close returns nothing
	// touches their buffers any more. It may be called after a method panicked over
	// memory that is gone.
	Close() error
}
