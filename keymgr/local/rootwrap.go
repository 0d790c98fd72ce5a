package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"sealblk/keymgr/secret"
)

const (
	rootFormat = "sealblk-kms-root"
	maxWrapped = 1 << 20
)

// wrappedRoot is the body of root.json, a document under the root key itself: whoever
// opens it learns at once whether all of it is what was written.
type wrappedRoot struct {
	Source  string          `json:"source"`
	Wrapped json.RawMessage `json:"wrapped"`
	// Sum is the SHA-256 of the two. Before the root key is there it tells damage from a
	// wrong passphrase, a wrong PIN and another TPM.
	Sum []byte `json:"sum"`

	document document
}

func (w *wrappedRoot) sum() []byte {
	h := sha256.Sum256(fmt.Appendf(nil, "sealblk KMS root 1\x00%s\x00%s", w.Source, w.Wrapped))
	return h[:]
}

// readWrapped reads root.json; it is nil if there is none.
func (s *store) readWrapped() (*wrappedRoot, error) {
	data, err := s.read(rootWrapped, maxWrapped)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	w, wrong := parseWrappedRoot(data)
	if wrong != "" {
		return nil, damaged(s.path(rootWrapped), wrong)
	}
	return w, nil
}

// parseWrappedRoot accepts exactly what wrapRoot writes. The string is what is wrong,
// "" if nothing is.
func parseWrappedRoot(data []byte) (*wrappedRoot, string) {
	d, wrong := parseDocument(data, rootFormat)
	if wrong != "" {
		return nil, wrong
	}
	w := &wrappedRoot{document: d}
	if err := decodeStrictly(d.Body, w); err != nil {
		return nil, "its content does not parse"
	}
	if again, err := json.Marshal(w); err != nil || !bytes.Equal(again, d.Body) {
		return nil, "its content is not in the form in which it was written"
	}
	if w.Source == "" || w.Source == RootFile || !bytes.Equal(w.Sum, w.sum()) {
		return nil, "its content is damaged"
	}
	return w, ""
}

// wrapRoot writes root.json, once the source has shown that it opens it again.
func (s *store) wrapRoot(name string, source RootSource) error {
	wrapped, err := source.Wrap(s.root)
	if err != nil {
		return fmt.Errorf("wrap root key (%s): %w", name, err)
	}
	w := &wrappedRoot{Source: name, Wrapped: wrapped}
	again, err := source.Unwrap(wrapped)
	if err != nil {
		return fmt.Errorf("try wrapped root key (%s): %w", name, err)
	}
	defer again.Destroy()
	if !again.Equal(s.root) {
		return fmt.Errorf("try wrapped root key (%s): it opens to another one", name)
	}
	w.Sum = w.sum()
	return s.writeDocument(rootWrapped, rootFormat, w)
}

// unsealRoot opens what a source sealed under a key that it derives. It returns nil
// without an error when the key is another one.
func unsealRoot(key *secret.Buffer, sealed, aad []byte) (*secret.Buffer, error) {
	if len(sealed) != keySize+sealOverhead {
		return nil, nil
	}
	return unseal(key, sealed, aad)
}
