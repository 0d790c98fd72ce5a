package vault

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/openbao/openbao/api/v2"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
	"sealblk/keymgr/wire"
)

// request is one call of the API, below /v1/. A body is encoded as JSON.
type request struct {
	method, path string
	body         any
}

// sealBody asks to wrap a data key.
type sealBody struct {
	dk    *secret.Buffer
	bound string
}

// client sends requests.
type client struct {
	api    *api.Client
	http   *http.Client
	config Config
}

func newClient(ctx context.Context, config Config) (*client, error) {
	c := api.NewConfig()
	if c.Error != nil {
		return nil, fmt.Errorf("configure Vault client: %w", c.Error)
	}
	c.Address, c.Timeout = config.Address, config.timeout()
	c.MaxRetries = 0 // keymgr.Retry retries
	certificate, key, err := config.pair(ctx)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	err = c.ConfigureTLS(&api.TLSConfig{
		CACert: config.CAFile, ClientCertBytes: certificate, ClientKeyBytes: key, TLSServerName: config.ServerName,
	})
	if err != nil {
		return nil, &keymgr.Error{
			Code: keymgr.CodeInvalid, Hint: "see ca_file, client_cert_file and client_key_file of [kms.vault]",
			Err: fmt.Errorf("configure TLS: %w: %w", err, keymgr.ErrInvalid),
		}
	}
	oneConnectionPerCall(c.HttpClient.Transport.(*http.Transport))
	made, err := api.NewClient(c)
	if err != nil {
		return nil, &keymgr.Error{
			Code: keymgr.CodeInvalid, Hint: "see address of [kms.vault]",
			Err: fmt.Errorf("configure Vault client: %w: %w", err, keymgr.ErrInvalid),
		}
	}
	if config.Namespace != "" {
		made.SetNamespace(config.Namespace)
	}
	return &client{api: made, http: c.HttpClient, config: config}, nil
}

// oneConnectionPerCall keeps to HTTP/1.1, where a call that times out takes its
// connection with it: a connection that died without a word is not used again.
func oneConnectionPerCall(t *http.Transport) {
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	t.TLSClientConfig.NextProtos = []string{"http/1.1"}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// send makes a call with a token and returns the answer's body, in locked memory, as
// there may be a key in it. An answer that says no is an *api.ResponseError.
func (c *client) send(ctx context.Context, token string, q request) (*wire.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.timeout())
	defer cancel()
	r := c.api.NewRequest(q.method, "/v1/"+q.path)
	r.ClientToken = token
	wipe, err := setBody(r, q.body)
	if err != nil {
		return nil, err
	}
	// Raw: the client's other ways parse answers, and leave keys on the heap.
	answer, err := c.api.RawRequestWithContext(ctx, r)
	if answer != nil {
		defer answer.Body.Close()
		wipe() // the server has read the request
	}
	if err != nil {
		return nil, err
	}
	all, err := wire.Read(answer.Body)
	if errors.Is(err, wire.ErrTooLong) {
		return nil, errors.New("the server's answer is too long")
	}
	return all, err
}

// setBody encodes a request's body. wipe overwrites it, if that is called for.
func setBody(r *api.Request, body any) (wipe func(), err error) {
	switch b := body.(type) {
	case nil:
		return func() {}, nil
	case sealBody:
		r.BodyBytes = b.encode()
		return func() { clear(r.BodyBytes) }, nil
	}
	r.BodyBytes, err = json.Marshal(body)
	return func() {}, err
}

// encode is the body as JSON, made without a copy of the data key on the way.
func (b sealBody) encode() []byte {
	size := base64.StdEncoding.EncodedLen(b.dk.Len())
	out := make([]byte, 0, size+len(b.bound)+64) // enough: append must not copy
	out = append(out, `{"context":"`...)
	out = append(out, b.bound...)
	out = append(out, `","plaintext":"`...)
	out = base64.StdEncoding.AppendEncode(out, b.dk.Bytes())
	return append(out, `"}`...)
}

// call makes a call about a key as whoever is logged in. When the token turns out to
// have ended, it logs in again and calls once more.
func (k *KMS) call(ctx context.Context, n name, q request) (*wire.Reply, error) {
	token, err := k.login.token(ctx)
	if err != nil {
		return nil, k.failed(ctx, n.uri(), err)
	}
	answer, err := k.client.send(ctx, token, q)
	if !isDenied(err) {
		return answer, err
	}
	fresh, failure := k.login.replace(ctx, token)
	switch {
	case failure != nil:
		return nil, k.failed(ctx, n.uri(), failure)
	case fresh == "":
		return nil, err
	}
	return k.client.send(ctx, fresh, q)
}

// refused is the server's own word that it does not do what was asked, or nil. Its API
// says so by a list of errors, which may be empty; the page of a proxy has none.
func refused(err error) *api.ResponseError {
	var no *api.ResponseError
	if !errors.As(err, &no) || no.RawError || no.Errors == nil {
		return nil
	}
	return no
}

func isDenied(err error) bool {
	no := refused(err)
	return no != nil && no.StatusCode == http.StatusForbidden
}

// isRefusal: the server says no, and would say so again.
func isRefusal(err error) bool {
	no := refused(err)
	return no != nil && no.StatusCode >= 400 && no.StatusCode < 500 && no.StatusCode != http.StatusTooManyRequests && no.StatusCode != http.StatusPreconditionFailed
}
