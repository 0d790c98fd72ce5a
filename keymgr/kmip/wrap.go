package kmip

import (
	"bytes"
	"context"
	"fmt"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/payloads"

	"sealblk/internal/sigmask"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// wrapUnder wraps a data key under a key or what replaced it.
func (s *session) wrapUnder(ctx context.Context, key string, dk *secret.Buffer, b binding) (keymgr.WrappedKey, error) {
	o, err := s.find(ctx, key)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	chain, err := s.newest(ctx, o)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	o = chain[len(chain)-1]
	if err := o.usable(); err != nil {
		return keymgr.WrappedKey{}, err
	}
	var out sealed
	if s.encrypts {
		out, err = s.encrypt(ctx, o.uid, dk, b.aad)
	} else {
		out, err = s.sealUnder(ctx, o.uid, dk, b.aad)
	}
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return keymgr.WrappedKey{URI: uriOf(o.uid), Version: o.uid, Blob: out.encode(b)}, nil
}

// unwrap opens a data key. The state is asked for first: a server may hand out, and some
// decrypt under, a key that was revoked.
func (s *session) unwrap(ctx context.Context, uid string, blob sealed, b binding) (*secret.Buffer, error) {
	o, err := s.lookUp(ctx, uid)
	if err != nil {
		return nil, err
	}
	if err := o.usable(); err != nil {
		return nil, err
	}
	var dk *secret.Buffer
	if s.encrypts {
		dk, err = s.decrypt(ctx, uid, blob, b.aad)
	} else {
		dk, err = s.unsealUnder(ctx, uid, blob, b.aad)
	}
	if err != nil {
		return nil, err
	}
	if err := keymgr.CheckDataKey(dk); err != nil {
		dk.Destroy()
		return nil, fmt.Errorf("%s: %w", uriOf(uid), &keymgr.Error{Code: CodeBlob, Err: err})
	}
	return dk, nil
}

// gcm is how the server is to encrypt.
func gcm() *kmip.CryptographicParameters {
	return &kmip.CryptographicParameters{
		BlockCipherMode: kmip.BlockCipherModeGCM, CryptographicAlgorithm: kmip.CryptographicAlgorithmAES, TagLength: tagSize,
	}
}

// encrypt has the server wrap.
func (s *session) encrypt(ctx context.Context, uid string, dk *secret.Buffer, aad []byte) (sealed, error) {
	nonce := newNonce()
	plain := dk.Bytes()
	out, err := ask[*payloads.EncryptResponsePayload](ctx, s, &payloads.EncryptRequestPayload{
		UniqueIdentifier: uid, CryptographicParameters: gcm(), Data: plain, IVCounterNonce: nonce,
		AuthenticatedEncryptionAdditionalData: aad,
	})
	if err != nil {
		return sealed{}, err
	}
	text, tag := out.Data, out.AuthenticatedEncryptionTag
	if len(tag) == 0 && len(text) == keymgr.DataKeySize+tagSize { // some servers put it behind the text
		text, tag = text[:keymgr.DataKeySize], text[keymgr.DataKeySize:]
	}
	if len(text) != keymgr.DataKeySize || len(tag) != tagSize || bytes.Equal(text, plain) {
		return sealed{}, errUnreadable
	}
	return sealed{nonce, text, tag}, nil
}

// decrypt has the server unwrap.
func (s *session) decrypt(ctx context.Context, uid string, blob sealed, aad []byte) (*secret.Buffer, error) {
	out, err := ask[*payloads.DecryptResponsePayload](ctx, s, &payloads.DecryptRequestPayload{
		UniqueIdentifier: uid, CryptographicParameters: gcm(), Data: blob.text, IVCounterNonce: blob.nonce,
		AuthenticatedEncryptionAdditionalData: aad, AuthenticatedEncryptionTag: blob.tag,
	})
	if err != nil {
		return nil, err
	}
	return keep(out.Data, keymgr.DataKeySize)
}

// keep moves a key into locked memory.
func keep(plain []byte, size int) (*secret.Buffer, error) {
	defer clear(plain)
	if len(plain) != size {
		return nil, errUnreadable
	}
	b, err := secret.New(size)
	if err != nil {
		return nil, err
	}
	return b, sigmask.Do(func() error {
		copy(b.Bytes(), plain)
		return nil
	})
}

// fetch gets a key from the server.
func (s *session) fetch(ctx context.Context, uid string) (*secret.Buffer, error) {
	out, err := ask[*payloads.GetResponsePayload](ctx, s, &payloads.GetRequestPayload{UniqueIdentifier: uid, KeyFormatType: kmip.KeyFormatTypeRaw})
	if err != nil {
		return nil, err
	}
	key, ok := out.Object.(*kmip.SymmetricKey)
	if !ok || key.KeyBlock.KeyValue == nil {
		return nil, errUnreadable
	}
	material, err := key.KeyMaterial()
	if err != nil {
		return nil, errUnreadable
	}
	return keep(material, 32)
}

func (s *session) sealUnder(ctx context.Context, uid string, dk *secret.Buffer, aad []byte) (sealed, error) {
	kek, err := s.fetch(ctx, uid)
	if err != nil {
		return sealed{}, err
	}
	defer kek.Destroy()
	return seal(kek, dk, aad)
}

func (s *session) unsealUnder(ctx context.Context, uid string, blob sealed, aad []byte) (*secret.Buffer, error) {
	kek, err := s.fetch(ctx, uid)
	if err != nil {
		return nil, err
	}
	defer kek.Destroy()
	dk, err := unseal(kek, blob, aad)
	if err == nil && dk == nil {
		err = badBlob(uriOf(uid), "its authentication fails")
	}
	return dk, err
}
