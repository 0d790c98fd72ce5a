package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"

	"sealblk/internal/sigmask"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Layout of a wrapped data key, see the package documentation.
const (
	blobMagic   = "SBK\x01"
	blobID      = 4
	blobVersion = blobID + 16
	blobContext = blobVersion + 4
	blobSealed  = blobContext + sha256.Size
	blobSize    = blobSealed + sealOverhead + keymgr.DataKeySize // of a disk's data key

	minBlob = blobSealed + sealOverhead + 1
	maxBlob = blobSealed + sealOverhead + MaxPlaintext
)

// MaxPlaintext is the most that Encrypt takes, in bytes.
const MaxPlaintext = 6 << 10

// contextDigest stands for an encryption context.
type contextDigest [sha256.Size]byte

func digestContext(ec keymgr.Context) (contextDigest, error) {
	encoded, err := ec.Encode()
	if err != nil {
		return contextDigest{}, &keymgr.Error{Code: keymgr.CodeInvalid, Err: err}
	}
	return sha256.Sum256(append([]byte("sealblk KMS context 1\x00"), encoded...)), nil
}

// blob is a parsed wrapped key.
type blob struct {
	id      string
	version uint32
	context contextDigest
	header  []byte // of the whole blob, what is authenticated beside the data key
	sealed  []byte
}

// parseBlob splits a blob. Everything in it is unverified until it is opened.
func parseBlob(b []byte) (blob, error) {
	if len(b) < minBlob || len(b) > maxBlob {
		return blob{}, badBlob("", fmt.Sprintf("it has %d bytes, not %d to %d", len(b), minBlob, maxBlob))
	}
	if !bytes.HasPrefix(b, []byte(blobMagic)) {
		return blob{}, badBlob("", "it was not made by this KMS, or by a newer one")
	}
	version := binary.BigEndian.Uint32(b[blobVersion:])
	if version == 0 {
		return blob{}, badBlob("", "it names no version")
	}
	return blob{
		id:      idPrefix + hex.EncodeToString(b[blobID:blobVersion]),
		version: version,
		context: contextDigest(b[blobContext:blobSealed]),
		header:  b[:blobSealed],
		sealed:  b[blobSealed:],
	}, nil
}

// WrappedKey reads from a blob what it was wrapped under. Nothing of it is verified
// before the blob is opened.
func WrappedKey(data []byte) (keymgr.WrappedKey, error) {
	b, err := parseBlob(data)
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return wrapped(b.id, b.version, data), nil
}

func wrapped(id string, version uint32, data []byte) keymgr.WrappedKey {
	return keymgr.WrappedKey{
		URI:     keymgr.SchemeLocal + ":" + id,
		Version: strconv.FormatUint(uint64(version), 10),
		Blob:    data,
	}
}

// parseWrapped checks that the parts of a wrapped key are about the same blob.
func parseWrapped(w keymgr.WrappedKey) (blob, error) {
	b, err := parseBlob(w.Blob)
	if err != nil {
		return blob{}, err
	}
	uri, err := keymgr.ParseURI(w.URI)
	if err != nil {
		return blob{}, err
	}
	if uri != (keymgr.URI{Scheme: keymgr.SchemeLocal, Key: b.id}) {
		return blob{}, badBlob(w.URI, "it was wrapped under "+b.id)
	}
	if w.Version != strconv.FormatUint(uint64(b.version), 10) {
		return blob{}, badBlob(w.URI, fmt.Sprintf("it was wrapped under version %d, not %q", b.version, w.Version))
	}
	return b, nil
}

// wrap seals a secret under a CMK's primary version.
func wrap(cmk *secret.Buffer, r *record, dk *secret.Buffer, context contextDigest) (keymgr.WrappedKey, error) {
	id, err := hex.DecodeString(r.ID[len(idPrefix):])
	if err != nil {
		return keymgr.WrappedKey{}, fmt.Errorf("encode key id: %w", err)
	}
	version := r.primary()
	header := append([]byte(blobMagic), id...)
	header = binary.BigEndian.AppendUint32(header, version)
	header = append(header, context[:]...)
	var sealed []byte
	err = sigmask.Do(func() error { // the registers hold words of the data key
		sealed, err = seal(cmk, dk.Bytes(), header)
		return err
	})
	if err != nil {
		return keymgr.WrappedKey{}, fmt.Errorf("wrap data key: %w", err)
	}
	return wrapped(r.ID, version, append(header, sealed...)), nil
}

// unwrap opens a blob under the CMK version that it names. A secret under another
// context never leaves this function.
func unwrap(cmk *secret.Buffer, b blob, context contextDigest) (*secret.Buffer, error) {
	var dk *secret.Buffer
	err := sigmask.Do(func() (err error) {
		dk, err = unseal(cmk, b.sealed, b.header)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("unwrap data key: %w", err)
	}
	if dk == nil {
		return nil, badBlob(b.id, "its authentication fails")
	}
	if b.context != context {
		dk.Destroy()
		return nil, &keymgr.Error{
			Code: CodeContext, Key: b.id,
			Hint: "the wrapped key belongs to another disk",
			Err:  keymgr.ErrContextMismatch,
		}
	}
	return dk, nil
}
