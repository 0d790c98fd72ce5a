package vhost

import (
	"errors"

	"sealblk/vhost/protocol"
)

// Errors that end a session: the front-end broke the protocol.
var (
	// ErrUnknownRequest: a message that this back-end does not serve.
	ErrUnknownRequest = errors.New("request is not known")
	// ErrFileCount: the wrong number of file descriptors came with a message.
	ErrFileCount = errors.New("wrong number of file descriptors")
	// ErrReply: a message from the front-end that is marked as a reply.
	ErrReply = errors.New("reply without a request")
)

// Errors of a request that is well-formed and cannot be carried out.
var (
	// ErrFeatures: features that were not offered.
	ErrFeatures = errors.New("features were not offered")
	// ErrNoRing: the device has fewer rings.
	ErrNoRing = errors.New("no such ring")
	// ErrRingStarted: the change needs a stopped ring.
	ErrRingStarted = errors.New("ring is started")
	// ErrRingValue: a size, index or address that no ring can have.
	ErrRingValue = errors.New("value is out of range for a ring")
)

// ErrPaused: the device opens no queue for now. The ring starts when it does.
var ErrPaused = errors.New("device is paused")

// ErrMemoryFault: guest memory vanished under an access (a truncated file).
var ErrMemoryFault = errors.New("guest memory is gone: its file was truncated")

// breaksProtocol tells whether there is no point in going on with the front-end.
func breaksProtocol(err error) bool {
	for _, e := range []error{
		ErrUnknownRequest, ErrFileCount, ErrReply,
		protocol.ErrPayloadSize, protocol.ErrPayloadValue,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
