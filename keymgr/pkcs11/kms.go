//go:build pkcs11

package pkcs11

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// KMS uses the keys of one token.
type KMS struct {
	token *token
	now   func() time.Time
}

var (
	_ keymgr.Wrapper   = (*KMS)(nil)
	_ keymgr.Versioned = (*KMS)(nil)
)

// Open loads the module. The token is looked for when a key is first used.
func Open(c Config) (keymgr.KMS, error) { return open(c) }

func open(c Config) (*KMS, error) {
	t, err := newToken(c)
	if err != nil {
		return nil, fmt.Errorf("open KMS: %w", err)
	}
	return &KMS{token: t, now: time.Now}, nil
}

// Close ends the sessions with the token.
func (k *KMS) Close() error {
	k.token.close()
	return nil
}

// made is a data key with what it is wrapped to.
type made struct {
	dk *secret.Buffer
	w  keymgr.WrappedKey
}

// GenerateDataKey makes a data key from the random numbers of the HSM and of the kernel.
func (k *KMS) GenerateDataKey(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	digest, err := digestContext(ec)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	m, err := call(ctx, k.token, job[made]{key: key, what: "generate data key", run: func(s session) (made, error) {
		v, err := k.primary(s, key)
		if err != nil {
			return made{}, err
		}
		dk, err := s.random(keymgr.DataKeySize)
		if err == nil {
			err = keymgr.CheckDataKey(dk)
		}
		var w keymgr.WrappedKey
		if err == nil {
			w, err = s.wrap(key, v, dk, digest)
		}
		if err != nil {
			dk.Destroy()
			return made{}, err
		}
		return made{dk, w}, nil
	}, discard: func(m made) { m.dk.Destroy() }})
	return m.dk, m.w, err
}

// GenerateDataKeyWithoutPlaintext is GenerateDataKey for a caller that must not see the
// data key. This process has it for a moment: see the package documentation.
func (k *KMS) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	dk, w, err := k.GenerateDataKey(ctx, key, ec)
	dk.Destroy()
	return w, err
}

// Decrypt unwraps a data key under the version that its blob names.
func (k *KMS) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	key, b, digest, err := take(w, ec)
	if err != nil {
		return nil, err
	}
	return call(ctx, k.token, job[*secret.Buffer]{key: key, what: "decrypt data key", run: func(s session) (*secret.Buffer, error) {
		return s.unwrap(key, b, digest)
	}, discard: (*secret.Buffer).Destroy})
}

// digestContext stands for an encryption context.
func digestContext(ec keymgr.Context) (d contextDigest, err error) {
	encoded, err := ec.Encode()
	if err != nil {
		return d, &keymgr.Error{Code: keymgr.CodeInvalid, Err: err}
	}
	return sha256.Sum256(append([]byte("sealblk PKCS#11 context 1\x00"), encoded...)), nil
}

// take parses the arguments of a call that unwraps.
func take(w keymgr.WrappedKey, ec keymgr.Context) (key string, b blob, digest contextDigest, err error) {
	if digest, err = digestContext(ec); err == nil {
		key, b, err = parseWrapped(w)
	}
	return key, b, digest, err
}

// ReEncrypt wraps the same data key under the primary version of newKey. This process
// has it for a moment.
func (k *KMS) ReEncrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
	key, b, digest, err := take(w, ec)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return call(ctx, k.token, job[keymgr.WrappedKey]{key: newKey, what: "re-encrypt data key", run: func(s session) (keymgr.WrappedKey, error) {
		dk, err := s.unwrap(key, b, digest)
		if err != nil {
			return keymgr.WrappedKey{}, err
		}
		defer dk.Destroy()
		v, err := k.primary(s, newKey)
		if err != nil {
			return keymgr.WrappedKey{}, err
		}
		return s.wrap(newKey, v, dk, digest)
	}})
}

// Wrap wraps a data key that the caller has.
func (k *KMS) Wrap(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
	digest, err := digestContext(ec)
	if err == nil {
		err = keymgr.CheckDataKey(dk)
	}
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	// The caller may destroy its buffer while the module still works on a call that came
	// to its time-out.
	own, err := dk.Clone()
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return call(ctx, k.token, job[keymgr.WrappedKey]{key: key, what: "wrap data key", run: func(s session) (keymgr.WrappedKey, error) {
		v, err := k.primary(s, key)
		if err != nil {
			return keymgr.WrappedKey{}, err
		}
		return s.wrap(key, v, own, digest)
	}, done: own.Destroy})
}

// DescribeKey tells what the token says of a key. It is Disabled when no version of it
// may encrypt, or none may decrypt.
func (k *KMS) DescribeKey(ctx context.Context, key string) (keymgr.KeyInfo, error) {
	return call(ctx, k.token, job[keymgr.KeyInfo]{key: key, what: "describe key", run: func(s session) (keymgr.KeyInfo, error) {
		all, err := s.versions(key)
		if err == nil {
			err = fit(all)
		}
		if err != nil {
			return keymgr.KeyInfo{}, err
		}
		info := keymgr.KeyInfo{
			URI: uriOf(key), KeyID: key, Aliases: []string{}, State: keymgr.Enabled, Origin: "PKCS11",
			Description: "label " + all[0].label, Versions: len(all), Created: all[0].start,
		}
		v, err := primary(key, all, k.now())
		if err != nil {
			v = all[len(all)-1]
		}
		info.PrimaryVersion = v.name()
		if err != nil || !slices.ContainsFunc(all, func(v version) bool { return v.decrypt }) {
			info.State = keymgr.Disabled
		}
		return info, nil
	}})
}

// CheckVersion fails if a version is not there, or may not decrypt. What it may do beside
// that, and its dates, are for new data keys.
func (k *KMS) CheckVersion(ctx context.Context, key, version string) error {
	id, err := hex.DecodeString(version)
	if err != nil {
		return badBlob(uriOf(key), fmt.Sprintf("%q is no version", version))
	}
	_, err = call(ctx, k.token, job[struct{}]{key: key, what: "check version of key", run: func(s session) (struct{}, error) {
		all, err := s.versions(key)
		if err == nil {
			_, err = byID(key, all, id)
		}
		return struct{}{}, err
	}})
	return err
}

func (k *KMS) primary(s session, key string) (version, error) {
	all, err := s.versions(key)
	if err != nil {
		return version{}, err
	}
	return primary(key, all, k.now())
}

// random is as unpredictable as the better of the HSM's and the kernel's generator.
func (s session) random(size int) (*secret.Buffer, error) {
	out, err := secret.Random(size)
	if err != nil {
		return nil, err
	}
	theirs, err := secret.New(size)
	if err == nil {
		err = s.raw.generateRandom(s.handle, theirs)
	}
	if err == nil {
		subtle.XORBytes(out.Bytes(), out.Bytes(), theirs.Bytes())
	}
	theirs.Destroy()
	if err != nil {
		out.Destroy()
		return nil, err
	}
	return out, nil
}

func (s session) wrap(key string, v version, dk *secret.Buffer, digest contextDigest) (keymgr.WrappedKey, error) {
	b, err := s.sealBlob(v, dk, digest)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return keymgr.WrappedKey{URI: uriOf(key), Version: v.name(), Blob: b.encode()}, nil
}

func (s session) sealBlob(v version, plain *secret.Buffer, digest contextDigest) (b blob, err error) {
	b = blob{id: v.id, digest: digest, header: blobHeader(v.id, digest)}
	if b.nonce, b.sealed, err = s.seal(v.object, plain, b.header); err != nil {
		return blob{}, err
	}
	if len(b.nonce) < 1 || len(b.nonce) > maxNonce || len(b.sealed) != plain.Len()+tagSize {
		return blob{}, fmt.Errorf("encrypt in the token: it answers with %d bytes of nonce and %d of ciphertext", len(b.nonce), len(b.sealed))
	}
	return b, nil
}

// unwrap opens a blob. A data key under another context never leaves this function.
func (s session) unwrap(key string, b blob, digest contextDigest) (*secret.Buffer, error) {
	dk, err := s.openBlob(key, b)
	if err != nil {
		return nil, err
	}
	switch {
	case dk == nil:
		return nil, badBlob(uriOf(key), "its authentication fails")
	case b.digest != digest:
		dk.Destroy()
		return nil, otherContext(uriOf(key))
	}
	if err := keymgr.CheckDataKey(dk); err != nil {
		dk.Destroy()
		return nil, err
	}
	return dk, nil
}

// openBlob returns nil without an error when the authentication fails.
func (s session) openBlob(key string, b blob) (*secret.Buffer, error) {
	all, err := s.versions(key)
	if err != nil {
		return nil, err
	}
	named, err := byID(key, all, b.id)
	if err != nil {
		return nil, err
	}
	for _, v := range named {
		if out, err := s.open(v, all, b.nonce, b.sealed, b.header); out != nil || err != nil {
			return out, err
		}
	}
	return nil, nil
}

func otherContext(uri string) error {
	return &keymgr.Error{
		Code: "InvalidEncryptionContext", Key: uri, Hint: "the wrapped key belongs to another disk",
		Err: keymgr.ErrContextMismatch,
	}
}
