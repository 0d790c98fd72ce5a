package blockdev

import "errors"

var (
	// ErrOutOfRange: offset + length is beyond the capacity, or one of them is negative.
	ErrOutOfRange = errors.New("request is outside the device")
	// ErrMisaligned: offset or length is not a multiple of the logical block size,
	// or the buffers do not add up to the length.
	ErrMisaligned = errors.New("request is not aligned to the logical block size")
	// ErrReadOnly: a request that changes data was sent to a read-only device.
	ErrReadOnly = errors.New("device is read-only")
	// ErrNotSupported: the device does not implement the operation (see Features).
	ErrNotSupported = errors.New("operation is not supported by the device")
	// ErrShort: the backend ended before the device did.
	ErrShort = errors.New("backend is shorter than the device")
	// ErrBusy: the backend is held by another process.
	ErrBusy = errors.New("backend is in use by another process")
	// ErrClosed: the device or queue was closed.
	ErrClosed = errors.New("device is closed")
)
