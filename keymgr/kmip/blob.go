package kmip

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"sealblk/keymgr"
)

// Layout of a wrapped data key, see the package documentation.
const (
	blobMagic   = "SBM\x01"
	blobDigest  = 4
	blobNonce   = blobDigest + sha256.Size
	blobText    = blobNonce + nonceSize
	blobTag     = blobText + keymgr.DataKeySize
	blobSum     = blobTag + tagSize
	blobSize    = blobSum + 4
	nonceSize   = 12
	tagSize     = 16
	contextMark = "sealblk KMIP context 1\x00"
)

// sealed is a data key under a KMIP key: AES-256-GCM.
type sealed struct {
	nonce, text, tag []byte
}

// binding is what a data key is bound to.
type binding struct {
	aad    []byte // the canonical encoding of the encryption context
	digest [sha256.Size]byte
}

func bind(ec keymgr.Context) (binding, error) {
	aad, err := ec.Encode()
	if err != nil {
		return binding{}, &keymgr.Error{Code: keymgr.CodeInvalid, Err: err}
	}
	return binding{aad, sha256.Sum256(append([]byte(contextMark), aad...))}, nil
}

// encode makes a blob.
func (s sealed) encode(b binding) []byte {
	out := append(make([]byte, 0, blobSize), blobMagic...)
	out = append(out, b.digest[:]...)
	out = append(out, s.nonce...)
	out = append(out, s.text...)
	out = append(out, s.tag...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out))
}

// parseBlob splits a blob that belongs to the binding. The checksum and the digest are
// not what protects it, the tag is: they tell damage from another disk's key before
// the server is asked.
func parseBlob(key string, blob []byte, b binding) (sealed, error) {
	switch {
	case len(blob) != blobSize:
		return sealed{}, badBlob(key, fmt.Sprintf("it has %d bytes, not %d", len(blob), blobSize))
	case !bytes.HasPrefix(blob, []byte(blobMagic)):
		return sealed{}, badBlob(key, "it was not made for KMIP, or by a newer version")
	case crc32.ChecksumIEEE(blob[:blobSum]) != binary.BigEndian.Uint32(blob[blobSum:]):
		return sealed{}, badBlob(key, "its checksum is wrong")
	case !bytes.Equal(blob[blobDigest:blobNonce], b.digest[:]):
		return sealed{}, &keymgr.Error{
			Code: CodeContext, Key: key, Hint: "the wrapped key belongs to another disk", Err: keymgr.ErrContextMismatch,
		}
	}
	return sealed{nonce: blob[blobNonce:blobText], text: blob[blobText:blobTag], tag: blob[blobTag:blobSum]}, nil
}
