package kmip

import (
	"context"
	"sync"

	"sealblk/internal/credential"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
	"sealblk/keymgr/wire"
)

// Scheme of the URIs of these keys.
const Scheme = "kmip"

func uriOf(key string) string { return Scheme + ":" + key }

// KMS is a KMIP server.
type KMS struct {
	config Config

	mu      sync.Mutex
	current *session // nil until it is needed, and after a failure
}

var (
	_ keymgr.KMS     = (*KMS)(nil)
	_ keymgr.Wrapper = (*KMS)(nil)
)

// Open checks the configuration. The first call connects, and reads a key that is a pipe.
func Open(ctx context.Context, c Config) (*KMS, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	if !credential.IsPipe(c.Key) {
		if _, err := c.tls(ctx); err != nil {
			return nil, err
		}
	}
	return &KMS{config: c}, nil
}

// Close closes the connection.
func (k *KMS) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil {
		k.current.conn.Close()
		k.current = nil
	}
	return nil
}

// call makes one call, of several requests.
func (k *KMS) call(ctx context.Context, key string, f func(context.Context, *session) error) error {
	within, cancel := context.WithTimeout(ctx, k.config.Timeout)
	defer cancel()
	return explain(ctx, uriOf(key), k.try(within, f))
}

// GenerateDataKey makes a data key here, for KMIP has no operation for it, and wraps it.
func (k *KMS) GenerateDataKey(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	dk, err := secret.Random(keymgr.DataKeySize)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	w, err := k.Wrap(ctx, key, dk, ec)
	if err != nil {
		dk.Destroy()
		return nil, keymgr.WrappedKey{}, err
	}
	return dk, w, nil
}

// Wrap wraps a data key that was made elsewhere. The caller keeps dk.
func (k *KMS) Wrap(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (w keymgr.WrappedKey, err error) {
	b, err := bind(ec)
	if err == nil {
		err = keymgr.CheckDataKey(dk)
	}
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	err = k.call(ctx, key, func(ctx context.Context, s *session) (err error) {
		w, err = s.wrapUnder(ctx, key, dk, b)
		return err
	})
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return w, nil
}

// GenerateDataKeyWithoutPlaintext makes a data key and wipes it: this process holds it
// for a moment.
func (k *KMS) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	dk, w, err := k.GenerateDataKey(ctx, key, ec)
	dk.Destroy()
	return w, err
}

// Decrypt unwraps a data key under the key that its URI names.
func (k *KMS) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (dk *secret.Buffer, err error) {
	uid, blob, b, err := parseWrapped(w, ec)
	if err != nil {
		return nil, err
	}
	err = k.call(ctx, uid, func(ctx context.Context, s *session) (err error) {
		dk, err = s.unwrap(ctx, uid, blob, b)
		return err
	})
	if err != nil {
		dk.Destroy()
		return nil, err
	}
	return dk, nil
}

// ReEncrypt unwraps a data key here and wraps it under another key, or under the one
// that replaced its own: KMIP has no operation for it.
func (k *KMS) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
	uid, blob, b, err := parseWrapped(w, ec)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	var dk *secret.Buffer
	defer func() { dk.Destroy() }()
	err = k.call(ctx, uid, func(ctx context.Context, s *session) (err error) {
		dk, err = s.unwrap(ctx, uid, blob, b)
		return err
	})
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return k.Wrap(ctx, newKey, dk, ec)
}

// DescribeKey tells what the server tells of a key.
func (k *KMS) DescribeKey(ctx context.Context, key string) (info keymgr.KeyInfo, err error) {
	err = k.call(ctx, key, func(ctx context.Context, s *session) error {
		o, err := s.find(ctx, key)
		if err != nil {
			return err
		}
		chain, err := s.newest(ctx, o)
		if err != nil {
			return err
		}
		info = o.info(chain)
		return nil
	})
	if err != nil {
		return keymgr.KeyInfo{}, err
	}
	return info, nil
}

// parseWrapped checks all that can be checked without the server.
func parseWrapped(w keymgr.WrappedKey, ec keymgr.Context) (uid string, blob sealed, b binding, err error) {
	uri, err := keymgr.ParseURI(w.URI)
	if err != nil {
		return "", sealed{}, binding{}, err
	}
	if uri.Scheme != Scheme {
		return "", sealed{}, binding{}, wire.Invalid(w.URI, "a wrapped key opens at the KMS that its URI names", "open a wrapped key of another KMS")
	}
	if b, err = bind(ec); err != nil {
		return "", sealed{}, binding{}, err
	}
	blob, err = parseBlob(w.URI, w.Blob, b)
	return uri.Key, blob, b, err
}
