package qmp

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func readAll(r io.Reader, limit int64) (n int, err error) {
	mr := newMessageReader(r, limit)
	for {
		m, err := mr.next()
		if err != nil {
			return n, err
		}
		if !m.isReply() && !m.isEvent() && m.QMP == nil {
			return n, errors.New("message of no kind")
		}
		n++
	}
}

// FuzzMessageReader asserts that bytes from a peer give messages or an error,
// the same whatever the packets' sizes, and never more than the limit is read for one.
func FuzzMessageReader(f *testing.F) {
	f.Add([]byte(greetingLine))
	f.Add([]byte(`{"return": {}, "id": "a"}{"error": {"class": "a", "desc": "b"}}`))
	f.Add([]byte(`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "E", "data": {"a": [1]}} null`))
	f.Add([]byte(`{"return": null, "id": 3} {"return":`))
	f.Add(bytes.Repeat([]byte("["), 5000))
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 12
		n, err := readAll(bytes.NewReader(data), limit)
		if err == nil {
			t.Fatal("no end")
		}
		n1, err1 := readAll(iotest.OneByteReader(bytes.NewReader(data)), limit)
		if errors.Is(err, ErrTooLarge) || errors.Is(err1, ErrTooLarge) {
			return // how much is read ahead depends on the packets
		}
		if n != n1 || errors.Is(err, ErrProtocol) != errors.Is(err1, ErrProtocol) {
			t.Fatalf("whole: %d messages, %v; byte by byte: %d, %v", n, err, n1, err1)
		}
	})
}
