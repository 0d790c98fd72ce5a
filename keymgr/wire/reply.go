package wire

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"sealblk/internal/sigmask"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// MaxReply is the longest reply that is read, in bytes. One with a data key has less
// than 2 KiB.
const MaxReply = 64 << 10

// Reply is the body of a reply, in locked memory.
type Reply struct {
	room *secret.Buffer
	size int
}

// Read reads a reply to its end. The caller destroys it.
func Read(body io.Reader) (*Reply, error) {
	room, err := secret.New(MaxReply)
	if err != nil {
		return nil, err
	}
	size, err := readAll(body, room.Bytes())
	if err != nil {
		room.Destroy()
		return nil, err
	}
	return &Reply{room, size}, nil
}

// readAll reads to the end, which must come before p is full.
func readAll(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) {
		m, err := r.Read(p[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("read reply: %w", err)
		}
	}
	return n, ErrTooLong
}

// Destroy wipes it. It may be nil.
func (r *Reply) Destroy() {
	if r != nil {
		r.room.Destroy()
	}
}

// Bytes is the body: the locked memory itself.
func (r *Reply) Bytes() []byte { return r.room.Bytes()[:r.size] }

// Find finds a string: the value of the last name in the object of the name before, and
// so on. It is a part of Bytes. A string with an escape in it is not found.
func (r *Reply) Find(names ...string) ([]byte, bool) { return find(r.Bytes(), names...) }

// TakeKey takes the data key out that Find would find in base64.
func (r *Reply) TakeKey(names ...string) (dk *secret.Buffer, err error) {
	err = sigmask.Do(func() (err error) {
		dk, err = takeKey(r.Bytes(), names...)
		return err
	})
	return dk, err
}

func takeKey(doc []byte, names ...string) (*secret.Buffer, error) {
	text, ok := findRaw(doc, names...)
	if !ok {
		return nil, noKey(doc, names[len(names)-1])
	}
	defer func() {
		for i := range text {
			text[i] = 'A'
		}
	}()
	inBase64 := unescapeSlashes(text)
	if !isPlain(inBase64) {
		return nil, ErrSyntax
	}
	return decode(inBase64)
}

// noKey tells a reply without a data key from one whose data key may be anywhere.
func noKey(doc []byte, name string) error {
	if bytes.Contains(doc, []byte(`"`+name+`"`)) {
		return ErrSyntax
	}
	return ErrNoKey
}

// unescapeSlashes takes the backslashes away that some encoders put before slashes, in
// place.
func unescapeSlashes(text []byte) []byte {
	n := 0
	for i := range text {
		if text[i] == '\\' && i+1 < len(text) && text[i+1] == '/' {
			continue
		}
		text[n] = text[i]
		n++
	}
	return text[:n]
}

// decode takes base64 of exactly one data key.
func decode(text []byte) (*secret.Buffer, error) {
	if len(text) != base64.StdEncoding.EncodedLen(keymgr.DataKeySize) {
		return nil, ErrNotKey
	}
	room, err := secret.New(base64.StdEncoding.DecodedLen(len(text))) // the decoder may write that much
	if err != nil {
		return nil, err
	}
	defer room.Destroy()
	if n, err := base64.StdEncoding.Strict().Decode(room.Bytes(), text); err != nil || n != keymgr.DataKeySize {
		return nil, ErrNotKey // the decoder's own error shows the text
	}
	dk, err := secret.New(keymgr.DataKeySize)
	if err != nil {
		return nil, err
	}
	copy(dk.Bytes(), room.Bytes())
	return dk, nil
}
