package kmsserver

import (
	"encoding/base64"
	"fmt"
	"maps"

	"sealblk/internal/sigmask"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

// underKey says what a secret is wrapped under.
type underKey struct{ KeyId, KeyVersionId string }

type blobReply struct {
	CiphertextBlob string
	underKey
}

func under(w keymgr.WrappedKey) underKey {
	u, _ := keymgr.ParseURI(w.URI) // made by the KMS
	return underKey{u.Key, w.Version}
}

func blobOf(w keymgr.WrappedKey) blobReply {
	return blobReply{base64.StdEncoding.EncodeToString(w.Blob), under(w)}
}

// dataKeySize is what KeySpec and NumberOfBytes ask for; the number counts if both do.
func (c *call) dataKeySize() (int, error) {
	size, ok := map[string]int{"": 32, "AES_256": 32, "AES_128": 16}[c.params["KeySpec"]]
	if !ok {
		return 0, faultf(codeInvalid, "the parameter KeySpec is AES_256 or AES_128")
	}
	return c.number("NumberOfBytes", size, 1, local.MaxGenerated)
}

// generated are the parameters of both actions that make data keys.
func (c *call) generated() (key string, size int, ec keymgr.Context, err error) {
	if key, err = c.key("KeyId"); err != nil {
		return "", 0, nil, err
	}
	if size, err = c.dataKeySize(); err != nil {
		return "", 0, nil, err
	}
	ec, err = c.context("EncryptionContext")
	return key, size, ec, err
}

func (c *call) generateDataKey() (any, error) {
	key, size, ec, err := c.generated()
	if err != nil {
		return nil, err
	}
	var dk *secret.Buffer
	var w keymgr.WrappedKey
	err = sigmask.Do(func() (err error) {
		dk, w, err = c.kms.GenerateSecret(c.ctx, key, size, ec)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &secretReply{blobOf(w), dk}, nil
}

func (c *call) generateDataKeyWithoutPlaintext() (any, error) {
	key, size, ec, err := c.generated()
	if err != nil {
		return nil, err
	}
	w, err := c.kms.GenerateSecretWithoutPlaintext(c.ctx, key, size, ec)
	return blobOf(w), err
}

func (c *call) decrypt() (any, error) {
	w, ec, err := c.wrapped("EncryptionContext")
	if err != nil {
		return nil, err
	}
	var plaintext *secret.Buffer
	err = sigmask.Do(func() (err error) {
		plaintext, err = c.kms.DecryptSecret(c.ctx, w, ec)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &secretReply{under(w), plaintext}, nil
}

// wrapped are the blob of a request and its context.
func (c *call) wrapped(context string) (keymgr.WrappedKey, keymgr.Context, error) {
	blob, err := c.blob("CiphertextBlob")
	if err != nil {
		return keymgr.WrappedKey{}, nil, err
	}
	w, err := local.WrappedKey(blob)
	if err != nil {
		return keymgr.WrappedKey{}, nil, err
	}
	ec, err := c.context(context)
	return w, ec, err
}

// encrypt wraps what the client brings. It came in the request's query string or form,
// which is on the Go heap.
func (c *call) encrypt() (any, error) {
	key, err := c.key("KeyId")
	if err != nil {
		return nil, err
	}
	ec, err := c.context("EncryptionContext")
	if err != nil {
		return nil, err
	}
	text := c.params["Plaintext"]
	if len(text) > base64.StdEncoding.EncodedLen(local.MaxPlaintext) {
		return nil, faultf(codeInvalid, "the parameter Plaintext is longer than %d bytes: encrypt data under a data key", local.MaxPlaintext)
	}
	data, err := c.blob("Plaintext")
	if err != nil {
		return nil, err
	}
	defer clear(data)
	plaintext, err := secret.New(len(data))
	if err != nil {
		return nil, fmt.Errorf("take plaintext: %w", err)
	}
	defer plaintext.Destroy()
	copy(plaintext.Bytes(), data)
	w, err := c.kms.Encrypt(c.ctx, key, plaintext, ec)
	return blobOf(w), err
}

func (c *call) reEncrypt() (any, error) {
	w, ec, err := c.wrapped("SourceEncryptionContext")
	if err != nil {
		return nil, err
	}
	to, err := c.key("DestinationKeyId")
	if err != nil {
		return nil, err
	}
	if err := c.checkSource(w); err != nil {
		return nil, err
	}
	after, err := c.context("DestinationEncryptionContext")
	if err != nil {
		return nil, err
	}
	if !maps.Equal(ec, after) {
		return nil, faultf(codeUnsupported, "the parameter DestinationEncryptionContext is not SourceEncryptionContext: "+
			"here what is wrapped stays bound to its context")
	}
	out, err := c.kms.ReEncrypt(c.ctx, w, ec, to)
	return blobOf(out), err
}

// checkSource refuses a blob of another key than the request says.
func (c *call) checkSource(w keymgr.WrappedKey) error {
	is := under(w)
	if id := fromARN(c.params["SourceKeyId"]); id != "" && id != is.KeyId && id != "key/"+is.KeyId {
		return faultf(codeInvalid, "the parameter SourceKeyId names another key than the blob, %s", is.KeyId)
	}
	if v := c.params["SourceKeyVersionId"]; v != "" && v != is.KeyVersionId {
		return faultf(codeInvalid, "the parameter SourceKeyVersionId is not the blob's, %s", is.KeyVersionId)
	}
	return nil
}
