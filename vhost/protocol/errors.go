package protocol

import "errors"

var (
	// ErrVersion: the header names a protocol version that is not 1.
	ErrVersion = errors.New("vhost-user version is not 1")
	// ErrPayloadTooLarge: the header announces more than MaxPayload bytes.
	ErrPayloadTooLarge = errors.New("payload is larger than any message may be")
	// ErrPayloadSize: the payload does not have the size that its type asks for.
	ErrPayloadSize = errors.New("payload has the wrong size")
	// ErrPayloadValue: a field of the payload is outside its range.
	ErrPayloadValue = errors.New("payload field is out of range")
	// ErrTooManyFiles: more than MaxFiles descriptors came with one message, or the
	// kernel could not deliver all of them.
	ErrTooManyFiles = errors.New("too many file descriptors with one message")
)
