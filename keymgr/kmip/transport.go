package kmip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/ttlv"
)

// maxReply is the longest message that is read, in bytes. An answer with a key has less
// than 1 KiB.
const maxReply = 64 << 10

// errUnreadable: what came back is not KMIP, or not an answer to what was asked.
var errUnreadable = errors.New("the answer does not fit the request")

// roundTrip sends a request and reads the answer, while nobody else does. It wipes both
// messages, which may carry keys. After an error that is not errUnreadable the
// connection is of no more use.
func (s *session) roundTrip(ctx context.Context, request *kmip.RequestMessage) (*kmip.ResponseMessage, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	interrupt := context.AfterFunc(ctx, func() {
		s.conn.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // it may be closed already
	})
	reply, err := exchange(s.conn, ttlv.MarshalTTLV(request))
	if !interrupt() {
		clear(reply)
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	defer clear(reply)
	return parseReply(reply)
}

// exchange sends a message and reads one.
func exchange(c net.Conn, message []byte) ([]byte, error) {
	_, err := c.Write(message)
	clear(message)
	if err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	var header [8]byte // tag, type, length
	if _, err := io.ReadFull(c, header[:]); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	size := (int64(binary.BigEndian.Uint32(header[4:])) + 7) &^ 7
	if size > maxReply-int64(len(header)) {
		return nil, fmt.Errorf("read answer of %d bytes: %w", size, errTooLong)
	}
	reply := make([]byte, int64(len(header))+size)
	copy(reply, header[:])
	if _, err := io.ReadFull(c, reply[len(header):]); err != nil {
		clear(reply)
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return reply, nil
}

// errTooLong: the stream cannot be read on behind such an answer.
var errTooLong = fmt.Errorf("it is longer than %d", maxReply)

// parseReply decodes an answer. The library panics on some that are malformed.
func parseReply(reply []byte) (m *kmip.ResponseMessage, err error) {
	defer func() {
		if recover() != nil {
			m, err = nil, errUnreadable
		}
	}()
	m = new(kmip.ResponseMessage)
	if err := ttlv.UnmarshalTTLV(reply, m); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return m, nil
}
