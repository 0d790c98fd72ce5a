package kmsserver

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"hash"
	"strconv"
	"sync"
	"time"

	"sealblk/internal/sigmask"
	"sealblk/keymgr/secret"
)

const (
	// tokenLife is how long what GetParametersForImport hands out may be used.
	tokenLife = 24 * time.Hour
	// maxImports are prepared at a time; the oldest is forgotten for a new one.
	maxImports = 64
	wrapBits   = 2048
)

// wrapHashes are the hashes of the supported ways to wrap material. PKCS #1 1.5 is not
// among them: what it leaks of failures gives the material away.
var wrapHashes = map[string]func() hash.Hash{"RSAES_OAEP_SHA_256": sha256.New, "RSAES_OAEP_SHA_1": sha1.New}

// prepared is the means to unwrap material for one key, once.
type prepared struct {
	key     string
	private *rsa.PrivateKey
	hash    func() hash.Hash
	expires time.Time
}

// imports are prepared, by their tokens. They are in memory only.
type imports struct {
	mu   sync.Mutex
	list map[string]prepared
}

func newImports() *imports { return &imports{list: map[string]prepared{}} }

func (m *imports) add(token string, p prepared) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) >= maxImports {
		oldest := token
		for t, q := range m.list {
			if oldest == token || q.expires.Before(m.list[oldest].expires) {
				oldest = t
			}
		}
		delete(m.list, oldest)
	}
	m.list[token] = p
}

// take finds what was prepared under a token. It stays until done.
func (m *imports) take(token, key string, now time.Time) (prepared, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.list[token]
	switch {
	case !ok:
		return prepared{}, faultf(codeToken, "the import token is not known, or was used; call GetParametersForImport")
	case p.key != key:
		return prepared{}, faultf(codeToken, "the import token is for the key %s", p.key)
	case !now.Before(p.expires):
		delete(m.list, token)
		return prepared{}, faultf(codeTokenOld, "the import token has expired; call GetParametersForImport")
	}
	return p, nil
}

func (m *imports) done(token string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.list, token)
}

type importReply struct{ ImportToken, KeyId, PublicKey, TokenExpireTime string }

func (c *call) getParametersForImport() (any, error) {
	key, err := c.key("KeyId")
	if err != nil {
		return nil, err
	}
	h, ok := wrapHashes[c.params["WrappingAlgorithm"]]
	if !ok || c.params["WrappingKeySpec"] != "RSA_2048" {
		return nil, faultf(codeInvalid, "the parameter WrappingAlgorithm is RSAES_OAEP_SHA_256 or RSAES_OAEP_SHA_1, and WrappingKeySpec RSA_2048")
	}
	k, err := c.kms.PrepareImport(c.ctx, key)
	if err != nil {
		return nil, err
	}
	private, err := rsa.GenerateKey(rand.Reader, wrapBits)
	if err != nil {
		return nil, fmt.Errorf("make wrapping key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encode wrapping key: %w", err)
	}
	raw := make([]byte, 32)
	rand.Read(raw) // never fails
	token := base64.StdEncoding.EncodeToString(raw)
	p := prepared{k.KeyID, private, h, c.now().Add(tokenLife)}
	c.imports.add(token, p)
	return importReply{token, k.KeyID, base64.StdEncoding.EncodeToString(public), timestamp(p.expires)}, nil
}

func (c *call) importKeyMaterial() (any, error) {
	key, err := c.key("KeyId")
	if err != nil {
		return nil, err
	}
	wrapped, err := c.blob("EncryptedKeyMaterial")
	if err != nil {
		return nil, err
	}
	expires, err := c.materialExpires()
	if err != nil {
		return nil, err
	}
	token := c.params["ImportToken"]
	p, err := c.imports.take(token, key, c.now())
	if err != nil {
		return nil, err
	}
	material, err := p.unwrap(wrapped)
	if err != nil {
		return nil, err
	}
	defer material.Destroy()
	if err := c.kms.ImportKeyMaterial(c.ctx, key, material, expires); err != nil {
		return nil, err
	}
	c.imports.done(token)
	return none{}, nil
}

// materialExpires is the zero time for never.
func (c *call) materialExpires() (time.Time, error) {
	text := c.params["KeyMaterialExpireUnix"]
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return time.Time{}, faultf(codeInvalid, "the parameter KeyMaterialExpireUnix is in seconds since 1970, or 0 for never")
	}
	return time.Unix(n, 0), nil
}

// unwrap puts the material into locked memory.
func (p *prepared) unwrap(wrapped []byte) (material *secret.Buffer, err error) {
	err = sigmask.Do(func() error {
		plain, err := rsa.DecryptOAEP(p.hash(), nil, p.private, wrapped, nil)
		if err != nil || len(plain) == 0 {
			return faultf("InvalidKeyMaterial", "the material for %s was not wrapped under the public key of this import token", p.key)
		}
		defer clear(plain)
		if material, err = secret.New(len(plain)); err != nil {
			return err
		}
		copy(material.Bytes(), plain)
		return nil
	})
	return material, err
}

func (c *call) deleteKeyMaterial() (any, error) {
	return c.change(func(key string) error { return c.kms.DeleteKeyMaterial(c.ctx, key) })
}
