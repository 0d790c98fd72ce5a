package aliyun

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"sealblk/internal/sigmask"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// maxReply is the longest reply with a data key, in bytes.
const maxReply = 16 << 10

// reply is what is not secret in a reply.
type reply struct {
	CiphertextBlob string
	KeyId          string
	KeyVersionId   string
}

// readSecret reads a reply with a data key in it, which only ever is in locked memory.
func readSecret(body io.Reader) (dk *secret.Buffer, r reply, err error) {
	buf, err := secret.New(maxReply)
	if err != nil {
		return nil, reply{}, err
	}
	defer buf.Destroy()
	n, err := readAll(body, buf.Bytes())
	if err != nil {
		return nil, reply{}, err
	}
	text := buf.Bytes()[:n]
	err = sigmask.Do(func() (err error) {
		dk, err = cutPlaintext(text)
		return err
	})
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		dk.Destroy()
		return nil, reply{}, fmt.Errorf("read reply: %w", keymgr.ErrCorrupt) // the parsers' own errors show the text
	}
	return dk, r, nil
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
			return n, err
		}
	}
	return n, fmt.Errorf("read reply: more than %d bytes: %w", len(p), keymgr.ErrCorrupt)
}

var errReply = errors.New("it does not parse")

// cutPlaintext finds the member Plaintext of a JSON object, decodes its value, which is
// one data key in Base64, and overwrites it with letters.
func cutPlaintext(object []byte) (*secret.Buffer, error) {
	text, err := member(object, "Plaintext")
	if err != nil {
		return nil, err
	}
	defer func() {
		for i := range text {
			text[i] = 'A'
		}
	}()
	if len(text) != base64.StdEncoding.EncodedLen(keymgr.DataKeySize) {
		text = unescapeSlashes(text)
	}
	return decode(text)
}

// unescapeSlashes takes the backslashes away that some encoders put before slashes, in
// place.
func unescapeSlashes(text []byte) []byte {
	n := 0
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) && text[i+1] == '/' {
			continue
		}
		text[n] = text[i]
		n++
	}
	return text[:n]
}

// decode takes Base64 of exactly one data key.
func decode(text []byte) (*secret.Buffer, error) {
	if len(text) != base64.StdEncoding.EncodedLen(keymgr.DataKeySize) {
		return nil, errReply
	}
	room, err := secret.New(base64.StdEncoding.DecodedLen(len(text))) // the decoder may write that much
	if err != nil {
		return nil, err
	}
	defer room.Destroy()
	if n, err := base64.StdEncoding.Decode(room.Bytes(), text); err != nil || n != keymgr.DataKeySize {
		return nil, errReply // the decoder's own error shows the text
	}
	dk, err := secret.New(keymgr.DataKeySize)
	if err != nil {
		return nil, err
	}
	copy(dk.Bytes(), room.Bytes())
	return dk, nil
}

// member is the value of a member of a JSON object, which is a string: what stands
// between its quotes. Members of objects inside are not looked at.
func member(object []byte, want string) ([]byte, error) {
	depth := 0
	for i := 0; i < len(object); i++ {
		switch object[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			text, next := quoted(object, i)
			if next < 0 {
				return nil, errReply
			}
			i = next - 1
			if depth != 1 || string(text) != want {
				continue
			}
			if value, ok := valueBehind(object, next); ok {
				return value, nil
			}
		}
	}
	return nil, errReply
}

// quoted is the string that begins at a quote, and where the text behind it begins, -1
// if it does not end.
func quoted(b []byte, at int) (text []byte, next int) {
	for i := at + 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return b[at+1 : i], i + 1
		}
	}
	return nil, -1
}

// valueBehind is the string behind a colon.
func valueBehind(b []byte, at int) ([]byte, bool) {
	at = skipSpace(b, at)
	if at >= len(b) || b[at] != ':' {
		return nil, false // it was a value itself
	}
	at = skipSpace(b, at+1)
	if at >= len(b) || b[at] != '"' {
		return nil, false
	}
	text, next := quoted(b, at)
	return text, next >= 0
}

func skipSpace(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\r' || b[at] == '\n') {
		at++
	}
	return at
}
