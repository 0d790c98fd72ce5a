package protocol

import (
	"encoding/binary"
	"fmt"
)

const (
	// HeaderSize is the size of a header on the wire, in bytes.
	HeaderSize = 12
	// MaxPayload bounds Header.Size. The largest payload that is served is a
	// configuration access (12 + 256 bytes); the rest is room to read, and then
	// refuse, the larger messages of other device types without losing the stream.
	MaxPayload = 4096
	// MaxFiles is the largest number of descriptors with one message: one for each
	// region of a memory table.
	MaxFiles = MaxTableRegions

	version = 1
)

// Flags of a header: the version in bits 0 and 1, then one bit each. Bits 4 to 31
// are not defined; they are kept as they came.
type Flags uint32

const (
	flagVersionMask Flags = 3
	// FlagReply marks the answer to a message.
	FlagReply Flags = 1 << 2
	// FlagNeedReply asks for an answer to a message that has none of its own
	// (REPLY_ACK).
	FlagNeedReply Flags = 1 << 3
)

// Header starts every message. Request is a Request or a BackendRequest, as the
// channel gives it; Size counts the payload's bytes.
type Header struct {
	Request uint32
	Flags   Flags
	Size    uint32
}

// NewHeader makes a header of version 1. Size is left to Conn.WriteMessage.
func NewHeader[R Request | BackendRequest](r R, f Flags) Header {
	return Header{Request: uint32(r), Flags: version | f}
}

// IsReply reports whether the message answers another one.
func (h *Header) IsReply() bool { return h.Flags&FlagReply != 0 }

// NeedReply reports whether the sender waits for an answer by REPLY_ACK.
func (h *Header) NeedReply() bool { return h.Flags&FlagNeedReply != 0 }

// Append puts the header's wire form behind b.
func (h *Header) Append(b []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, h.Request)
	b = binary.NativeEndian.AppendUint32(b, uint32(h.Flags))
	return binary.NativeEndian.AppendUint32(b, h.Size)
}

// Decode reads a header from exactly HeaderSize bytes and checks the version and
// the bound of the size. The fields are set in any case, for messages about them.
func (h *Header) Decode(b []byte) error {
	if len(b) != HeaderSize {
		return fmt.Errorf("decode header of %d bytes: %w", len(b), ErrPayloadSize)
	}
	h.Request = binary.NativeEndian.Uint32(b)
	h.Flags = Flags(binary.NativeEndian.Uint32(b[4:]))
	h.Size = binary.NativeEndian.Uint32(b[8:])
	if h.Flags&flagVersionMask != version {
		return fmt.Errorf("decode header with flags %#x: %w", uint32(h.Flags), ErrVersion)
	}
	if h.Size > MaxPayload {
		return fmt.Errorf("decode header with %d bytes of payload: %w", h.Size, ErrPayloadTooLarge)
	}
	return nil
}
