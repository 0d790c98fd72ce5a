package frontend

import "errors"

var (
	// ErrBackend: the back-end broke the specification.
	ErrBackend = errors.New("back-end broke the protocol")
	// ErrRefused: the back-end answered a message with a failure (REPLY_ACK).
	ErrRefused = errors.New("back-end refused the message")
	// ErrTimeout: the back-end did not answer in time.
	ErrTimeout = errors.New("back-end did not answer in time")
	// ErrDisconnected: the back-end closed the connection.
	ErrDisconnected = errors.New("back-end is gone")
	// ErrNotOffered: the back-end does not offer what the caller asked for.
	ErrNotOffered = errors.New("back-end does not offer it")
	// ErrNoMemory: the guest memory of the caller's layout is used up.
	ErrNoMemory = errors.New("guest memory is used up")
	// ErrOutsideMemory: an address is not in guest memory.
	ErrOutsideMemory = errors.New("address is outside guest memory")
	// ErrRingFull: there are not enough free descriptors.
	ErrRingFull = errors.New("not enough free descriptors")
	// ErrConfig: options that contradict each other or are out of range.
	ErrConfig = errors.New("invalid options")
	// ErrIO: a request completed with VIRTIO_BLK_S_IOERR.
	ErrIO = errors.New("request failed")
	// ErrUnsupported: a request completed with VIRTIO_BLK_S_UNSUPP.
	ErrUnsupported = errors.New("request type is not supported")
)
