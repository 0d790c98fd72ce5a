//go:build pkcs11

package pkcs11

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Root is the source of root keys under a key of the HSM.
type Root struct {
	Config Config
	// Key is the name, without its scheme, of the key that new root keys are wrapped under.
	Key string
}

// wrappedRoot is a root key as the KMS's folder holds it.
type wrappedRoot struct {
	Key  string `json:"key"`
	Blob []byte `json:"blob"`
}

const rootSize = 32

// rootDigest stands where a data key has the digest of its context.
var rootDigest = contextDigest(sha256.Sum256([]byte("sealblk PKCS#11 root 1")))

// Wrap encrypts a root key in the HSM.
func (r Root) Wrap(root *secret.Buffer) (json.RawMessage, error) {
	if r.Key == "" {
		return nil, badConfig("name a key of the token: pkcs11_key = \"LABEL\" in [kms.local.root]", "no key for the root key")
	}
	own, err := root.Clone() // the module may work on it after the time-out
	if err != nil {
		return nil, err
	}
	b, err := onToken(r.Config, job[blob]{key: r.Key, what: "wrap root key", run: func(s session) (blob, error) {
		all, err := s.versions(r.Key)
		if err != nil {
			return blob{}, err
		}
		v, err := primary(r.Key, all, time.Now())
		if err != nil {
			return blob{}, err
		}
		return s.sealBlob(v, own, rootDigest)
	}, done: own.Destroy})
	if err != nil {
		return nil, err
	}
	return json.Marshal(wrappedRoot{r.Key, b.encode()})
}

// Unwrap decrypts a root key in the HSM, under the key that it was wrapped under.
func (r Root) Unwrap(wrapped json.RawMessage) (*secret.Buffer, error) {
	var w wrappedRoot
	d := json.NewDecoder(bytes.NewReader(wrapped))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return nil, fmt.Errorf("parse wrapped root key: %w", keymgr.ErrCorrupt)
	}
	b, wrong := parseBlob(w.Blob)
	if wrong != "" || b.digest != rootDigest || len(b.sealed) != rootSize+tagSize {
		return nil, fmt.Errorf("parse wrapped root key: %w", keymgr.ErrCorrupt)
	}
	return onToken(r.Config, job[*secret.Buffer]{key: w.Key, what: "unwrap root key", run: func(s session) (*secret.Buffer, error) {
		root, err := s.openBlob(w.Key, b)
		if err == nil && root == nil {
			err = &keymgr.Error{
				Code: "RootKeyLocked", Key: uriOf(w.Key), Hint: "bring the HSM's key back from its backup, or restore the KMS: sealblk kms restore FILE",
				Err: fmt.Errorf("it is another key than the root key was wrapped under: %w", keymgr.ErrAccessDenied),
			}
		}
		return root, err
	}, discard: (*secret.Buffer).Destroy})
}

// onToken does one job on a connection of its own.
func onToken[T any](c Config, j job[T]) (T, error) {
	t, err := newToken(c)
	if err != nil {
		j.end()
		var none T
		return none, err
	}
	defer t.close()
	return call(context.Background(), t, j)
}
