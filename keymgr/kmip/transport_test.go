package kmip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/payloads"
	"github.com/ovh/kmip-go/ttlv"
)

// message is TTLV with a value of n bytes.
func message(n int) []byte {
	m := append([]byte{0x42, 0, 0x7b, 1}, binary.BigEndian.AppendUint32(nil, uint32(n))...)
	return append(m, bytes.Repeat([]byte{'x'}, (n+7)&^7)...)
}

// stream answers with what it has, at most step bytes at a time, and keeps the memory that
// it was given.
type stream struct {
	net.Conn
	answer  []byte
	step    int
	written [][]byte
	read    [][]byte
}

func (w *stream) Write(p []byte) (int, error) {
	w.written = append(w.written, p)
	return len(p), nil
}

func (w *stream) Read(p []byte) (int, error) {
	if len(w.answer) == 0 {
		return 0, net.ErrClosed
	}
	n := copy(p[:min(len(p), w.step)], w.answer)
	w.answer = w.answer[n:]
	w.read = append(w.read, p[:n])
	return n, nil
}

func (w *stream) SetDeadline(time.Time) error { return nil }
func (w *stream) Close() error                { return nil }

func TestExchange(t *testing.T) {
	for _, step := range []int{1, 3, 8, 11, 512} {
		for _, n := range []int{0, 5, 64, 400} {
			w := &stream{answer: message(n), step: step}
			reply, err := exchange(w, []byte("request"))
			if err != nil || !bytes.Equal(reply, message(n)) {
				t.Errorf("step %d, %d bytes: %x, %v", step, n, reply, err)
			}
			if !bytes.Equal(w.written[0], make([]byte, 7)) {
				t.Errorf("the request is still there: %q", w.written[0])
			}
		}
	}
	for name, answer := range map[string][]byte{
		"nothing": nil, "half a header": message(8)[:5], "half an answer": message(64)[:40], "too long": message(maxReply)[:64],
	} {
		if _, err := exchange(&stream{answer: answer, step: 512}, []byte("request")); !lost(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// answerWith is a whole answer to a Decrypt.
func answerWith(data []byte) []byte {
	return ttlv.MarshalTTLV(&kmip.ResponseMessage{
		Header: kmip.ResponseHeader{ProtocolVersion: kmip.V1_4, TimeStamp: time.Unix(1, 0), BatchCount: 1},
		BatchItem: []kmip.ResponseBatchItem{{
			Operation: kmip.OperationDecrypt, ResultStatus: kmip.ResultStatusSuccess,
			ResponsePayload: &payloads.DecryptResponsePayload{UniqueIdentifier: "k", Data: data},
		}},
	})
}

func TestMessagesAreWiped(t *testing.T) {
	plain := bytes.Repeat([]byte("plain"), 8)
	w := &stream{answer: answerWith(plain), step: 512}
	s := &session{conn: w, turn: make(chan struct{}, 1), version: kmip.V1_4}
	out, err := ask[*payloads.DecryptResponsePayload](t.Context(), s, &payloads.EncryptRequestPayload{UniqueIdentifier: "k", Data: plain})
	if err != nil || !bytes.Equal(out.Data, plain) {
		t.Fatalf("%v, %v", out, err)
	}
	for _, p := range append(w.written, w.read...) {
		if bytes.Contains(p, []byte("plain")) {
			t.Errorf("a message is still there: %q", p)
		}
	}
}

func TestWaitingForATurnEnds(t *testing.T) {
	s := &session{conn: &stream{}, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{} // somebody else's call
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.roundTrip(ctx, &kmip.RequestMessage{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add(answerWith([]byte("data")))
	f.Add(message(0))
	f.Add([]byte{0x42, 0, 0x7b, 2, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, reply []byte) {
		if m, err := parseReply(reply); err == nil && m == nil || err != nil && !errors.Is(err, errUnreadable) {
			t.Fatalf("%v, %v", m, err)
		}
	})
}
