package local

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"sealblk/keymgr/secret"
)

const (
	keySize = 32 // of the root key and of CMK material
	// sealOverhead is what sealing adds: nonce in front, tag behind.
	sealOverhead = 12 + 16
)

// newAEAD is AES-256-GCM with random nonces, which it puts in front of the
// ciphertext. Its round keys lie on the Go heap: use it once and let it go.
func newAEAD(key *secret.Buffer) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key.Bytes())
	if err != nil {
		return nil, fmt.Errorf("expand key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func seal(key *secret.Buffer, plaintext, aad []byte) ([]byte, error) {
	g, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return g.Seal(nil, nil, plaintext, aad), nil
}

// unseal decrypts into locked memory. It returns nil without an error when the
// authentication fails.
func unseal(key *secret.Buffer, sealed, aad []byte) (*secret.Buffer, error) {
	g, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	out, err := secret.New(len(sealed) - sealOverhead)
	if err != nil {
		return nil, err
	}
	if _, err := g.Open(out.Bytes()[:0], nil, sealed, aad); err != nil {
		out.Destroy()
		return nil, nil
	}
	return out, nil
}

// materialAAD binds sealed material to its key and version.
func materialAAD(id string, version uint32) []byte {
	aad := append([]byte("sealblk KMS material 1\x00"), id...)
	return binary.BigEndian.AppendUint32(append(aad, 0), version)
}

// document is a stored file: a body and what authenticates it.
type document struct {
	Format  string          `json:"format"`
	Version int             `json:"version"`
	Auth    []byte          `json:"auth"`
	Body    json.RawMessage `json:"body"`
}

const documentVersion = 1

func (d *document) aad() []byte {
	return fmt.Appendf(nil, "sealblk KMS document\x00%s\x00%d\x00%s", d.Format, d.Version, d.Body)
}

// encodeDocument makes a file of a value.
func encodeDocument(root *secret.Buffer, format string, body any) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", format, err)
	}
	d := document{Format: format, Version: documentVersion, Body: raw}
	if d.Auth, err = seal(root, nil, d.aad()); err != nil {
		return nil, fmt.Errorf("authenticate %s: %w", format, err)
	}
	data, err := json.Marshal(d)
	return append(data, '\n'), err
}

// parseDocument accepts exactly what encodeDocument writes. The string is what is
// wrong, "" if nothing is. The body is not to be trusted before authentic says so.
func parseDocument(data []byte, format string) (document, string) {
	var d document
	if err := decodeStrictly(data, &d); err != nil {
		return document{}, "it does not parse"
	}
	switch {
	case d.Format != format:
		return document{}, "it is not a " + format + " file"
	case d.Version > documentVersion:
		return document{}, fmt.Sprintf("its version %d is newer than this program", d.Version)
	case d.Version != documentVersion || len(d.Auth) != sealOverhead:
		return document{}, "it does not parse"
	}
	if again, err := json.Marshal(d); err != nil || !bytes.Equal(append(again, '\n'), data) {
		return document{}, "it is not in the form in which it was written"
	}
	return d, ""
}

func (d *document) authentic(root *secret.Buffer) (bool, error) {
	g, err := newAEAD(root)
	if err != nil {
		return false, err
	}
	_, err = g.Open(nil, nil, d.Auth, d.aad())
	return err == nil, nil
}

// decodeStrictly decodes one JSON value without unknown fields and with nothing but
// space behind it.
func decodeStrictly(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("decode: data behind the value")
	}
	return nil
}
