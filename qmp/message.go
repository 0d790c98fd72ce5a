package qmp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// MaxMessage is the size in bytes up to which a message from QEMU is accepted.
// The largest in practice, the reply to query-qmp-schema, has some 200 KiB.
const MaxMessage = 64 << 20

// message is anything the server sends: the greeting, a reply or an event.
type message struct {
	QMP    *greeting       `json:"QMP"`
	ID     json.RawMessage `json:"id"`
	Return json.RawMessage `json:"return"`
	Failed *Error          `json:"error"`
	goqemu.Event
}

type greeting struct {
	Version goqemu.Version `json:"version"`
}

// command is what the client sends.
type command struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        string `json:"id"`
}

func (m *message) isReply() bool { return m.Return != nil || m.Failed != nil }
func (m *message) isEvent() bool { return m.Event.Event != "" }

// result is the outcome that a reply carries.
func (m *message) result() (json.RawMessage, error) {
	if m.Failed != nil {
		return nil, m.Failed
	}
	return m.Return, nil
}

// messageReader splits a byte stream into messages. QEMU ends each with a line
// break but may also print them over several lines, so only the JSON text tells
// where a message ends.
type messageReader struct {
	dec   *json.Decoder
	meter meter
}

func newMessageReader(r io.Reader, limit int64) *messageReader {
	mr := &messageReader{meter: meter{r: r, limit: limit}}
	mr.dec = json.NewDecoder(&mr.meter)
	return mr
}

// next reads one message. After an error the stream is of no more use.
func (r *messageReader) next() (*message, error) {
	r.meter.left = r.meter.limit
	m := new(message)
	if err := r.dec.Decode(m); err != nil {
		return nil, readError(err)
	}
	if m.QMP == nil && !m.isReply() && !m.isEvent() {
		return nil, fmt.Errorf("read message: %w: neither reply nor event", ErrProtocol)
	}
	return m, nil
}

// readError tells what is the server's fault from what is the connection's.
func readError(err error) error {
	var syntax *json.SyntaxError
	var shape *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &shape) {
		return fmt.Errorf("read message: %w: %w", ErrProtocol, err)
	}
	return fmt.Errorf("read message: %w", err)
}

// meter bounds the bytes read for one message.
type meter struct {
	r           io.Reader
	limit, left int64
}

func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, m.limit)
	}
	p = p[:min(int64(len(p)), m.left)]
	n, err := m.r.Read(p)
	m.left -= int64(n)
	return n, err
}
