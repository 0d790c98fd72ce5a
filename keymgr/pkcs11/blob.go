package pkcs11

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"sealblk/keymgr"
)

// Layout of a wrapped key, see the package documentation.
const (
	blobMagic = "SBP\x01"
	nonceSize = 12
	maxNonce  = 64
	tagSize   = 16
	maxID     = 64
	idPrefix  = "id="
)

// keyName is what a URI names: objects with a label, or one by its id.
type keyName struct {
	label string
	id    []byte
}

// parseName takes the part of a URI behind the scheme.
func parseName(key string) (keyName, error) {
	hexID, byID := strings.CutPrefix(key, idPrefix)
	if !byID {
		if key == "" {
			return keyName{}, badName(key, "a key is named pkcs11:LABEL")
		}
		return keyName{label: key}, nil
	}
	id, err := hex.DecodeString(hexID)
	if err != nil || len(id) < 1 || len(id) > maxID {
		return keyName{}, badName(key, fmt.Sprintf("a CKA_ID is 1 to %d bytes in hexadecimal", maxID))
	}
	return keyName{id: id}, nil
}

func badName(key, hint string) error {
	return &keymgr.Error{Code: keymgr.CodeInvalid, Key: uriOf(key), Hint: hint, Err: fmt.Errorf("parse name of key: %w", keymgr.ErrInvalid)}
}

func uriOf(key string) string { return Scheme + ":" + key }

// contextDigest stands for an encryption context.
type contextDigest [sha256.Size]byte

// blob is a parsed wrapped key. Everything in it is unverified until it is opened.
type blob struct {
	id     []byte
	digest contextDigest
	header []byte // what is authenticated beside the data key
	nonce  []byte
	sealed []byte
}

func blobHeader(id []byte, digest contextDigest) []byte {
	h := append([]byte(blobMagic), byte(len(id)))
	return append(append(h, id...), digest[:]...)
}

// encode puts a blob together.
func (b *blob) encode() []byte {
	out := append(bytes.Clone(b.header), byte(len(b.nonce)))
	return append(append(out, b.nonce...), b.sealed...)
}

// parseBlob splits a blob.
func parseBlob(data []byte) (b blob, wrong string) {
	rest, ok := bytes.CutPrefix(data, []byte(blobMagic))
	if !ok {
		return b, "it was not made by this KMS, or by a newer one"
	}
	if b.id, rest, ok = cut(rest, maxID); !ok || len(rest) < sha256.Size {
		return b, "it is cut"
	}
	b.digest, rest = contextDigest(rest), rest[sha256.Size:]
	if b.nonce, rest, ok = cut(rest, maxNonce); !ok || len(rest) <= tagSize {
		return b, "it is cut"
	}
	b.header, b.sealed = blobHeader(b.id, b.digest), rest
	return b, ""
}

// cut takes 1 to most bytes off, with their number in front.
func cut(b []byte, most int) (head, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	n := int(b[0])
	if n < 1 || n > most || n >= len(b) {
		return nil, nil, false
	}
	return b[1 : 1+n], b[1+n:], true
}

// parseWrapped checks that the parts of a wrapped key are about the same blob, and
// returns the name of the key without its scheme.
func parseWrapped(w keymgr.WrappedKey) (key string, b blob, err error) {
	b, wrong := parseBlob(w.Blob)
	if wrong == "" && len(b.sealed) != keymgr.DataKeySize+tagSize {
		wrong = "its length is wrong"
	}
	if wrong == "" && w.Version != hex.EncodeToString(b.id) {
		wrong = fmt.Sprintf("it was wrapped under version %x, not %q", b.id, w.Version)
	}
	if wrong != "" {
		return "", blob{}, badBlob(w.URI, wrong)
	}
	uri, err := keymgr.ParseURI(w.URI)
	if err != nil {
		return "", blob{}, err
	}
	if uri.Scheme != Scheme {
		return "", blob{}, badBlob(w.URI, "it belongs to a key of PKCS#11")
	}
	return uri.Key, b, nil
}

func badBlob(uri, why string) error {
	return &keymgr.Error{
		Code: "InvalidCiphertext", Key: uri, Hint: "the wrapped key was altered or cut; restore the disk's header from a backup",
		Err: fmt.Errorf("open wrapped key: %s: %w", why, keymgr.ErrCorrupt),
	}
}
