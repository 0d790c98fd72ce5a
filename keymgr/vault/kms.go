package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
	"sealblk/keymgr/wire"
)

// KMS is one server.
type KMS struct {
	config Config
	client *client
	login  *login

	mu  sync.Mutex
	fit map[name]bool // keys that are as they must be
}

var (
	_ keymgr.KMS       = (*KMS)(nil)
	_ keymgr.Wrapper   = (*KMS)(nil)
	_ keymgr.Versioned = (*KMS)(nil)
)

// Open prepares the use of a server. It does not connect.
func Open(ctx context.Context, config Config) (*KMS, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	c, err := newClient(ctx, config)
	if err != nil {
		return nil, err
	}
	k := &KMS{config: config, client: c, fit: map[name]bool{}}
	k.login = newLogin(config, c)
	return k, nil
}

// Close ends the renewal of the token. Calls that follow fail with ErrClosed.
func (k *KMS) Close() error {
	k.login.close()
	k.client.close()
	return nil
}

// GenerateDataKey makes a data key under a key's newest version.
func (k *KMS) GenerateDataKey(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	n, answer, err := k.generate(ctx, key, "plaintext", ec)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	defer answer.Destroy()
	w, err := k.wrapped(n, answer)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	dk, err := k.plaintext(n, answer)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	return dk, w, nil
}

// GenerateDataKeyWithoutPlaintext makes a data key that never leaves the server.
func (k *KMS) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	n, answer, err := k.generate(ctx, key, "wrapped", ec)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	defer answer.Destroy()
	return k.wrapped(n, answer)
}

func (k *KMS) generate(ctx context.Context, key, kind string, ec keymgr.Context) (name, *wire.Reply, error) {
	n, err := parseName(key)
	if err != nil {
		return name{}, nil, err
	}
	bound, err := contextOf(ec)
	if err != nil {
		return name{}, nil, err
	}
	if err := k.mustFit(ctx, n); err != nil {
		return name{}, nil, err
	}
	body := map[string]any{"context": bound, "bits": 8 * keymgr.DataKeySize}
	answer, err := k.call(ctx, n, request{http.MethodPut, n.path("datakey/" + kind), body})
	if err != nil {
		return name{}, nil, k.diagnose(ctx, n, 0, err)
	}
	return n, answer, nil
}

// Decrypt unwraps a data key.
func (k *KMS) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	n, version, bound, err := k.open(ctx, w, ec)
	if err != nil {
		return nil, err
	}
	body := map[string]any{"ciphertext": string(w.Blob), "context": bound}
	answer, err := k.call(ctx, n, request{http.MethodPut, n.path("decrypt"), body})
	if err != nil {
		return nil, k.diagnose(ctx, n, version, err)
	}
	defer answer.Destroy()
	return k.plaintext(n, answer)
}

// open checks what a disk stores, and its key.
func (k *KMS) open(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (n name, version int, bound string, err error) {
	if n, version, err = parseWrapped(w); err != nil {
		return n, 0, "", err
	}
	if bound, err = contextOf(ec); err != nil {
		return n, 0, "", err
	}
	return n, version, bound, k.mustFit(ctx, n)
}

// ReEncrypt wraps a data key under the newest version of newKey: inside the server if
// that is the key it is under, else through locked memory of this process.
func (k *KMS) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
	to, err := parseName(newKey)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	n, version, bound, err := k.open(ctx, w, ec)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	if n != to {
		return k.move(ctx, w, ec, to)
	}
	body := map[string]any{"ciphertext": string(w.Blob), "context": bound}
	answer, err := k.call(ctx, n, request{http.MethodPut, n.path("rewrap"), body})
	if err != nil {
		return keymgr.WrappedKey{}, k.diagnose(ctx, n, version, err)
	}
	defer answer.Destroy()
	return k.wrapped(n, answer)
}

func (k *KMS) move(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, to name) (keymgr.WrappedKey, error) {
	if err := k.mustFit(ctx, to); err != nil {
		return keymgr.WrappedKey{}, err
	}
	dk, err := k.Decrypt(ctx, w, ec)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	defer dk.Destroy()
	return k.wrap(ctx, to, dk, ec)
}

// Wrap wraps a data key that was made elsewhere.
func (k *KMS) Wrap(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
	n, err := parseName(key)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	if err := keymgr.CheckDataKey(dk); err != nil {
		return keymgr.WrappedKey{}, &keymgr.Error{Code: keymgr.CodeInvalid, Key: n.uri(), Hint: "wrap data keys only", Err: err}
	}
	if err := k.mustFit(ctx, n); err != nil {
		return keymgr.WrappedKey{}, err
	}
	return k.wrap(ctx, n, dk, ec)
}

func (k *KMS) wrap(ctx context.Context, to name, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
	bound, err := contextOf(ec)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	answer, err := k.call(ctx, to, request{http.MethodPut, to.path("encrypt"), sealBody{dk, bound}})
	if err != nil {
		return keymgr.WrappedKey{}, k.diagnose(ctx, to, 0, err)
	}
	defer answer.Destroy()
	return k.wrapped(to, answer)
}

// DescribeKey tells a key's state and newest version.
func (k *KMS) DescribeKey(ctx context.Context, key string) (keymgr.KeyInfo, error) {
	n, err := parseName(key)
	if err != nil {
		return keymgr.KeyInfo{}, err
	}
	s, err := k.read(ctx, n)
	if err != nil {
		return keymgr.KeyInfo{}, err
	}
	return s.info(n), nil
}

// CheckVersion fails if the key's state, or its min_decryption_version, keeps a version
// from opening what it wrapped.
func (k *KMS) CheckVersion(ctx context.Context, key, version string) error {
	n, err := parseName(key)
	if err != nil {
		return err
	}
	v, err := strconv.Atoi(version)
	if err != nil {
		return badBlob(n.uri(), fmt.Sprintf("%q is no version", version))
	}
	s, err := k.read(ctx, n)
	if err != nil {
		return err
	}
	if err := s.mustFit(n); err != nil {
		return err
	}
	return s.mustOpen(n, v)
}

// wrapped is the wrapped key of an answer.
func (k *KMS) wrapped(n name, answer *wire.Reply) (keymgr.WrappedKey, error) {
	text, ok := answer.Find("data", "ciphertext")
	blob := string(text)
	version, fits := parseBlob(blob)
	if !ok || !fits {
		return keymgr.WrappedKey{}, k.unreachable(n.uri(), "the server's answer holds no wrapped data key")
	}
	return keymgr.WrappedKey{URI: n.uri(), Version: strconv.Itoa(version), Blob: []byte(blob)}, nil
}

// plaintext takes the data key out of an answer.
func (k *KMS) plaintext(n name, answer *wire.Reply) (*secret.Buffer, error) {
	dk, err := answer.TakeKey("data", "plaintext")
	switch {
	case errors.Is(err, wire.ErrNotKey):
		return nil, badBlob(n.uri(), fmt.Sprintf("what it holds is not a data key of %d bytes", keymgr.DataKeySize))
	case errors.Is(err, keymgr.ErrCorrupt):
		return nil, k.unreachable(n.uri(), "the server's answer holds no data key")
	case err != nil:
		return nil, err
	}
	if err := keymgr.CheckDataKey(dk); err != nil {
		dk.Destroy()
		return nil, &keymgr.Error{Code: CodeBlob, Key: n.uri(), Hint: "make the disk again: its data key is no good", Err: err}
	}
	return dk, nil
}
