// Package protocol is the wire format of vhost-user, for both ends of the socket.
//
// A message is a [Header] of 12 bytes, a payload of Header.Size bytes, and file
// descriptors that travel beside them. Numbers have the machine's byte order. The
// names of requests, features and payload fields are those of the specification.
//
// # Contract
//
// Decoding is strict and touches nothing but its argument: a payload has exactly
// the size that its type and its own counts give it, or Decode returns an error
// that wraps [ErrPayloadSize] or [ErrPayloadValue]. Whether a well-formed message
// makes sense in the state of a session is not decided here. Append* and Decode
// are inverse to each other, reserved bytes aside: they are written as zero and
// not looked at.
//
// [Conn] moves whole messages. The payload it hands out lies in its buffer and is
// valid until the next ReadMessage.
//
// # File descriptors
//
// Every received descriptor is close-on-exec and belongs to the [Files] of its
// message until the caller takes it. What was not taken is closed by
// Files.CloseAll, by the next ReadMessage into the same [Message], or, when the
// message cannot be read to its end, before ReadMessage returns. At most
// [MaxFiles] come with one message; more is an error and none is kept.
//
// # Threading
//
// A Conn may be read by one goroutine and written by another at the same time,
// not more. SetDeadline and Close may be called from anywhere.
//
// # Failure model
//
// A peer that closes between messages is io.EOF; within one, io.ErrUnexpectedEOF.
// After any other error of ReadMessage the position in the stream is unknown and
// the connection is of no more use. Memory is bounded by [MaxPayload] whatever a
// peer sends.
//
// # Sources
//
// QEMU docs/interop/vhost-user.rst, sections "Message Specification" (Header,
// Payload), "Communication", "Protocol features", "Front-end message types",
// "Back-end message types"; unix(7) SCM_RIGHTS.
package protocol
