package local

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// RootCredential is the source of a root key under another key, which is in a systemd
// credential or in a file elsewhere.
const RootCredential = "credential"

// A credential that a root key is wrapped under has that many bytes. They must be
// random: nothing stretches them.
const (
	MinCredential = 32
	MaxCredential = 4096
)

// CredentialSource is the source RootCredential.
type CredentialSource struct {
	// Name of the credential that new root keys are wrapped under, or a path, with a slash.
	Name string
}

type credentialRoot struct {
	Name string `json:"name"`
	Salt []byte `json:"salt"`
	Key  []byte `json:"key"`
}

func (c *credentialRoot) aad() []byte {
	return fmt.Appendf(nil, "sealblk KMS root credential 1\x00%s\x00%s", c.Name, c.Salt)
}

// Wrap wraps under the credential that the source names.
func (s CredentialSource) Wrap(root *secret.Buffer) (json.RawMessage, error) {
	salt, err := secret.Random(saltSize) // no secret, but at hand
	if err != nil {
		return nil, fmt.Errorf("make salt: %w", err)
	}
	defer salt.Destroy()
	c := credentialRoot{Name: s.Name, Salt: append([]byte(nil), salt.Bytes()...)}
	key, err := c.key()
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	if c.Key, err = seal(key, root.Bytes(), c.aad()); err != nil {
		return nil, err
	}
	return json.Marshal(c)
}

// Unwrap opens by the credential that was current when the key was wrapped.
func (s CredentialSource) Unwrap(wrapped json.RawMessage) (*secret.Buffer, error) {
	var c credentialRoot
	if err := decodeStrictly(wrapped, &c); err != nil || len(c.Salt) != saltSize {
		return nil, fmt.Errorf("parse wrapped root key: %w", keymgr.ErrCorrupt)
	}
	key, err := c.key()
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	root, err := unsealRoot(key, c.Key, c.aad())
	if err == nil && root == nil {
		err = locked("credential "+c.Name+" is another one than the root key was wrapped under", "bring the old one back, or restore the KMS from a backup")
	}
	return root, err
}

func (c *credentialRoot) key() (*secret.Buffer, error) {
	content, err := secret.ReadFile(context.Background(), c.Name, MaxCredential)
	if err != nil {
		return nil, &keymgr.Error{
			Code: CodeRootLocked, Err: err,
			Hint: "run this as a systemd service, or by systemd-run, with LoadCredentialEncrypted=" + c.Name + " or LoadCredential=",
		}
	}
	defer content.Destroy()
	if content.Len() < MinCredential {
		return nil, invalid("", fmt.Sprintf("make one of %d random bytes: head -c %d /dev/random | systemd-creds encrypt --name=%s - FILE", MinCredential, MinCredential, c.Name),
			"credential %s has %d bytes", c.Name, content.Len())
	}
	made, err := hkdf.Key(sha256.New, content.Bytes(), c.Salt, "sealblk KMS root credential 1", keySize)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	defer clear(made)
	key, err := secret.New(keySize)
	if err == nil {
		copy(key.Bytes(), made)
	}
	return key, err
}
