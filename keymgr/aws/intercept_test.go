package aws

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"sealblk/keymgr"
)

func sampleKey() []byte {
	key := make([]byte, keymgr.DataKeySize)
	for i := range key {
		key[i] = byte(251 * (i + 1)) // holds bytes that base64 makes / and + of
	}
	return key
}

// replier answers everything with one body.
type replier struct {
	status int
	body   string
}

func (r replier) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: r.status, Body: io.NopCloser(strings.NewReader(r.body)), ContentLength: int64(len(r.body))}, nil
}

func TestTheSDKSeesNoDataKey(t *testing.T) {
	text := base64.StdEncoding.EncodeToString(sampleKey())
	for _, body := range []string{
		`{"CiphertextBlob":"AAAA","Plaintext":"` + text + `","KeyId":"k"}`,
		"{ \"Plaintext\" :\n\t\"" + text + "\" }",
	} {
		var c catcher
		request, err := http.NewRequestWithContext(c.in(t.Context()), http.MethodPost, "http://kms", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := interceptor{replier{http.StatusOK, body}}.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		left, _ := io.ReadAll(resp.Body)
		if c.dk == nil || !bytes.Equal(c.dk.Bytes(), sampleKey()) {
			t.Error("the data key was not caught")
		}
		c.dk.Destroy()
		if len(left) != len(body) || strings.Contains(string(left), text[:8]) || !json.Valid(left) {
			t.Errorf("the SDK gets %s", left)
		}
	}
}

func TestOtherRepliesPass(t *testing.T) {
	const body = `{"Plaintext":"not looked at"}`
	var c catcher
	for name, ctx := range map[string]struct {
		r      replier
		caught bool
	}{"an error": {replier{http.StatusBadRequest, body}, true}, "nobody waits for a key": {replier{http.StatusOK, body}, false}} {
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://kms", nil)
		if ctx.caught {
			request = request.WithContext(c.in(t.Context()))
		}
		resp, err := interceptor{ctx.r}.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		if left, _ := io.ReadAll(resp.Body); string(left) != body || c.dk != nil {
			t.Errorf("%s: %s", name, left)
		}
	}
}

func TestWipeReader(t *testing.T) {
	body := []byte("a data key")
	r := bytes.NewReader(body)
	io.CopyN(io.Discard, r, 5)
	wipeReader(r)
	if !bytes.Equal(body, make([]byte, len(body))) {
		t.Errorf("left: %q", body)
	}
	wipeReader(strings.NewReader("something else"))
}
