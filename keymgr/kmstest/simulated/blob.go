package simulated

import (
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Layout of a blob: magic, version of the key, digests of the key's name and of the
// context, and behind this header, which is authenticated with it, the data key.
const (
	magic      = "SIM\x01"
	atVersion  = 4
	atKey      = atVersion + 4
	atContext  = atKey + sha256.Size
	atSealed   = atContext + sha256.Size
	sealedSize = 12 + keymgr.DataKeySize + 16
	blobSize   = atSealed + sealedSize
)

// usable is a key that may be used.
func (k *KMS) usable(name string) (*cmk, error) {
	c, err := k.find(name)
	switch {
	case err != nil:
		return nil, err
	case c.denied:
		return nil, &keymgr.Error{Code: "AccessDenied", Key: name, Hint: "authorise the caller on the key", Err: keymgr.ErrAccessDenied}
	case c.state != keymgr.Enabled:
		return nil, &keymgr.Error{Code: "Disabled", Key: name, Hint: "enable the key", Err: keymgr.ErrDisabled}
	}
	return c, nil
}

// find returns a copy, which does not change.
func (k *KMS) find(name string) (*cmk, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.keys[name]
	if c == nil {
		return nil, &keymgr.Error{Code: "NotFound", Key: name, Hint: "make the key, or correct its name", Err: keymgr.ErrNotFound}
	}
	copied := *c
	return &copied, nil
}

func (k *KMS) generate(name string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	dk, err := secret.Random(keymgr.DataKeySize)
	if err != nil {
		return nil, keymgr.WrappedKey{}, err
	}
	w, err := k.wrap(name, dk, ec)
	if err != nil {
		dk.Destroy()
		return nil, keymgr.WrappedKey{}, err
	}
	return dk, w, nil
}

func (k *KMS) wrap(name string, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
	digest, err := digestOf(ec)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	c, err := k.usable(name)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	version := len(c.versions)
	nameDigest := sha256.Sum256([]byte(name))
	header := binary.BigEndian.AppendUint32([]byte(magic), uint32(version))
	header = append(append(header, nameDigest[:]...), digest[:]...)
	return keymgr.WrappedKey{
		URI: uri(name), Version: fmt.Sprint(version),
		Blob: append(header, c.versions[version-1].Seal(nil, nil, dk.Bytes(), header)...),
	}, nil
}

func (k *KMS) decrypt(w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	digest, err := digestOf(ec)
	if err != nil {
		return nil, err
	}
	u, err := keymgr.ParseURI(w.URI)
	if err != nil {
		return nil, err
	}
	if u.Scheme != Scheme {
		return nil, corrupt(w.URI, "it belongs to another KMS")
	}
	c, err := k.usable(u.Key)
	if err != nil {
		return nil, err
	}
	seal, err := c.sealOf(u.Key, w.Blob)
	if err != nil {
		return nil, err
	}
	dk, err := secret.New(keymgr.DataKeySize)
	if err != nil {
		return nil, err
	}
	if _, err := seal.Open(dk.Bytes()[:0], nil, w.Blob[atSealed:], w.Blob[:atSealed]); err != nil {
		dk.Destroy()
		return nil, corrupt(u.Key, "its authentication fails")
	}
	if [sha256.Size]byte(w.Blob[atContext:atSealed]) != digest {
		dk.Destroy()
		return nil, &keymgr.Error{Code: "ContextMismatch", Key: u.Key, Hint: "the wrapped key belongs to another disk", Err: keymgr.ErrContextMismatch}
	}
	return dk, nil
}

// sealOf is the version of the key that a blob was sealed under.
func (c *cmk) sealOf(name string, blob []byte) (cipher.AEAD, error) {
	if len(blob) != blobSize || string(blob[:atVersion]) != magic {
		return nil, corrupt(name, "it does not parse")
	}
	if sha256.Sum256([]byte(name)) != [sha256.Size]byte(blob[atKey:atContext]) {
		return nil, corrupt(name, "another key wrapped it")
	}
	version := binary.BigEndian.Uint32(blob[atVersion:])
	if version < 1 || uint64(version) > uint64(len(c.versions)) {
		return nil, corrupt(name, "it names a version that is not there")
	}
	return c.versions[version-1], nil
}

func digestOf(ec keymgr.Context) ([sha256.Size]byte, error) {
	encoded, err := ec.Encode()
	if err != nil {
		return [sha256.Size]byte{}, &keymgr.Error{Code: keymgr.CodeInvalid, Hint: "correct the encryption context", Err: err}
	}
	return sha256.Sum256(encoded), nil
}

func corrupt(key, why string) error {
	return &keymgr.Error{
		Code: "Corrupt", Key: key, Hint: "restore the disk's header from a backup",
		Err: fmt.Errorf("open wrapped key: %s: %w", why, keymgr.ErrCorrupt),
	}
}
