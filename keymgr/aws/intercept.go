package aws

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"sealblk/keymgr/secret"
	"sealblk/keymgr/wire"
)

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
	reply, err := wire.Read(body)
	if err != nil {
		return nil, err
	}
	defer reply.Destroy()
	c.dk.Destroy() // of a call that was made again
	c.dk, err = reply.TakeKey("Plaintext")
	if err != nil && !errors.Is(err, wire.ErrNoKey) {
		return nil, err
	}
	return bytes.Clone(reply.Bytes()), nil
}
