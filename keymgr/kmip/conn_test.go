package kmip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
)

// message is TTLV with a value of n bytes.
func message(n int) []byte {
	m := append([]byte{0x42, 0, 0x7b, 1}, binary.BigEndian.AppendUint32(nil, uint32(n))...)
	return append(m, bytes.Repeat([]byte{'x'}, (n+7)&^7)...)
}

// source gives what it has, at most step bytes at a time.
type source struct {
	net.Conn
	data []byte
	step int
}

func (s *source) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.data)
	s.data = s.data[n:]
	return n, nil
}

// readMessage reads as the library does: a header, then the rest, into one buffer.
func readMessage(t *testing.T, c net.Conn) []byte {
	t.Helper()
	buf := make([]byte, 512)
	read, need := 0, 8
	for read < need {
		n, err := c.Read(buf[read:need])
		if err != nil {
			t.Fatal(err)
		}
		if read += n; read >= 8 {
			need = 8 + (int(binary.BigEndian.Uint32(buf[4:]))+7)&^7
		}
	}
	return buf[:need]
}

func TestReceivedMessagesAreWiped(t *testing.T) {
	for _, step := range []int{1, 3, 8, 11, 512} {
		sizes := []int{64, 0, 5, 400}
		src := &source{step: step}
		for _, n := range sizes {
			src.data = append(src.data, message(n)...)
		}
		c := &conn{Conn: src}
		var last []byte
		for _, n := range sizes {
			m := readMessage(t, c)
			if !bytes.Equal(m, message(n)) {
				t.Fatalf("step %d: a message of %d bytes came damaged: %x", step, n, m)
			}
			if last != nil && !bytes.Equal(last, make([]byte, len(last))) {
				t.Errorf("step %d: the message before that of %d bytes is still there", step, n)
			}
			last = m
		}
		if _, err := c.Read(make([]byte, 8)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if !bytes.Equal(last, make([]byte, len(last))) {
			t.Error("the last message is still there")
		}
	}
}

func TestSentMessagesAreWiped(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	got := make(chan []byte)
	go func() {
		b := make([]byte, 72)
		io.ReadFull(there, b)
		got <- b
	}()
	m := message(64)
	if _, err := (&conn{Conn: here}).Write(m); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, message(64)) {
		t.Errorf("sent %x", b)
	}
	if !bytes.Equal(m, make([]byte, len(m))) {
		t.Error("what was sent is still there")
	}
}
