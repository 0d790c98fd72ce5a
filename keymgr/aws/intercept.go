package aws

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"

	"sealblk/internal/sigmask"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// maxReply is the longest reply with a data key, in bytes. AWS sends less than 2 KiB.
const maxReply = 64 << 10

// catcher receives the data key of one call.
type catcher struct{ dk *secret.Buffer }

type catcherKey struct{}

func (c *catcher) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, catcherKey{}, c)
}

// interceptor stands between the SDK and the network. It takes the data key out of a
// reply before the SDK reads it: the SDK would leave copies all over the heap.
type interceptor struct{ next http.RoundTripper }

// RoundTrip makes one call. Where a catcher waits for the data key, the SDK gets a
// reply with as many letters A instead.
func (i interceptor) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := i.next.RoundTrip(r)
	c, _ := r.Context().Value(catcherKey{}).(*catcher)
	if err != nil || c == nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	body, err := c.take(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// take reads a reply into locked memory and returns it without the data key.
func (c *catcher) take(body io.Reader) ([]byte, error) {
	buf, err := secret.New(maxReply)
	if err != nil {
		return nil, err
	}
	defer buf.Destroy()
	n, err := readAll(body, buf.Bytes())
	if err != nil {
		return nil, err
	}
	reply := buf.Bytes()[:n]
	c.dk.Destroy() // of a call that was made again
	c.dk = nil
	err = sigmask.Do(func() (err error) {
		c.dk, err = cutPlaintext(reply)
		return err
	})
	if err != nil {
		return nil, err
	}
	return bytes.Clone(reply), nil
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
	return n, fmt.Errorf("read reply: more than %d bytes: %w", len(p), keymgr.ErrCorrupt)
}

var plaintextField = []byte(`"Plaintext"`)

// cutPlaintext decodes the value of the field Plaintext and overwrites it with letters.
// It returns nil where there is none. The reply is an object of strings none of which
// can hold a quotation mark that is not escaped, so that the name is found nowhere else.
func cutPlaintext(reply []byte) (*secret.Buffer, error) {
	_, rest, found := bytes.Cut(reply, plaintextField)
	if !found {
		return nil, nil
	}
	text, ok := stringValue(rest)
	if !ok {
		return nil, fmt.Errorf("read reply: its data key does not parse: %w", keymgr.ErrCorrupt)
	}
	defer func() {
		for i := range text {
			text[i] = 'A'
		}
	}()
	return decode(text)
}

// stringValue is the value behind the name of a field, without its quotes.
func stringValue(b []byte) (text []byte, ok bool) {
	const space = " \t\r\n"
	b, ok = bytes.CutPrefix(bytes.TrimLeft(b, space), []byte(":"))
	if !ok {
		return nil, false
	}
	b, ok = bytes.CutPrefix(bytes.TrimLeft(b, space), []byte(`"`))
	end := bytes.IndexByte(b, '"')
	if !ok || end < 0 {
		return nil, false
	}
	return b[:end], true
}

// decode takes base64 of exactly one data key.
func decode(text []byte) (*secret.Buffer, error) {
	wrong := fmt.Errorf("read reply: its data key is not one of %d bytes: %w", keymgr.DataKeySize, keymgr.ErrCorrupt)
	if len(text) != base64.StdEncoding.EncodedLen(keymgr.DataKeySize) {
		return nil, wrong
	}
	room, err := secret.New(base64.StdEncoding.DecodedLen(len(text))) // the decoder may write that much
	if err != nil {
		return nil, err
	}
	defer room.Destroy()
	if n, err := base64.StdEncoding.Decode(room.Bytes(), text); err != nil || n != keymgr.DataKeySize {
		return nil, wrong // the decoder's own error shows the text
	}
	dk, err := secret.New(keymgr.DataKeySize)
	if err != nil {
		return nil, err
	}
	copy(dk.Bytes(), room.Bytes())
	return dk, nil
}
