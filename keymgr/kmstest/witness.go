package kmstest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// witness is a KMS that passes calls on and remembers what came back, to compare errors
// with keys in the end.
type witness struct {
	t   testing.TB
	kms keymgr.KMS

	mu   sync.Mutex
	keys []*secret.Buffer // copies
	errs []string         // with their hints
}

var _ keymgr.KMS = (*witness)(nil)

func (w *witness) GenerateDataKey(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	dk, wrapped, err := w.kms.GenerateDataKey(ctx, key, ec)
	w.saw("GenerateDataKey", dk, wrapped, err)
	return dk, wrapped, err
}

func (w *witness) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec keymgr.Context) (keymgr.WrappedKey, error) {
	wrapped, err := w.kms.GenerateDataKeyWithoutPlaintext(ctx, key, ec)
	w.saw("GenerateDataKeyWithoutPlaintext", nil, wrapped, err)
	return wrapped, err
}

func (w *witness) Decrypt(ctx context.Context, wrapped keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	dk, err := w.kms.Decrypt(ctx, wrapped, ec)
	w.saw("Decrypt", dk, keymgr.WrappedKey{}, err)
	return dk, err
}

func (w *witness) ReEncrypt(ctx context.Context, wrapped keymgr.WrappedKey, ec keymgr.Context, newKey string) (keymgr.WrappedKey, error) {
	out, err := w.kms.ReEncrypt(ctx, wrapped, ec, newKey)
	w.saw("ReEncrypt", nil, out, err)
	return out, err
}

// Wrap is the call of a KMS that is a keymgr.Wrapper.
func (w *witness) Wrap(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
	out, err := w.kms.(keymgr.Wrapper).Wrap(ctx, key, dk, ec)
	w.saw("Wrap", dk, out, nil)
	w.saw("Wrap", nil, keymgr.WrappedKey{}, err)
	return out, err
}

func (w *witness) DescribeKey(ctx context.Context, key string) (keymgr.KeyInfo, error) {
	info, err := w.kms.DescribeKey(ctx, key)
	w.saw("DescribeKey", nil, keymgr.WrappedKey{}, err)
	return info, err
}

// saw checks what holds for the results of any call, and remembers them.
func (w *witness) saw(method string, dk *secret.Buffer, wrapped keymgr.WrappedKey, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if dk != nil {
		if kept, cloneErr := dk.Clone(); cloneErr != nil {
			w.t.Errorf("%s: keep data key: %v", method, cloneErr)
		} else {
			w.keys = append(w.keys, kept)
		}
	}
	if err == nil {
		return
	}
	if dk != nil || wrapped.URI != "" || wrapped.Blob != nil {
		w.t.Errorf("%s: it returned a key and failed: %v", method, err)
	}
	text := err.Error()
	var e *keymgr.Error
	if errors.As(err, &e) {
		text += " " + e.Hint
	}
	if strings.Contains(text, "\n") {
		w.t.Errorf("%s: error is more than a line: %q", method, text)
	}
	w.errs = append(w.errs, text+fmt.Sprintf(" %+v", err))
}

// testify compares all errors with all data keys, and forgets both.
func (w *witness) testify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, dk := range w.keys {
		for _, err := range w.errs {
			if reveals(err, dk.Bytes()) {
				w.t.Errorf("an error holds bytes of a data key")
			}
		}
		dk.Destroy()
	}
	w.keys, w.errs = nil, nil
}

// reveals looks for the beginnings of both halves of a key in a text, as they are and
// in the notations that programs print bytes in.
func reveals(text string, key []byte) bool {
	const window = 9 // a multiple of 3, for base64
	lower := strings.ToLower(text)
	for _, at := range []int{0, 33} { // a multiple of 3, too
		if len(key) < at+window {
			return false
		}
		part := key[at : at+window]
		list := strings.Trim(fmt.Sprintf("%d", part), "[]")
		source := strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}")
		if bytes.Contains([]byte(text), part) || strings.Contains(lower, hex.EncodeToString(part)) ||
			strings.Contains(text, list) || strings.Contains(text, source) || strings.Contains(text, strings.ReplaceAll(list, " ", ", ")) ||
			strings.Contains(text, base64.StdEncoding.EncodeToString(part)) ||
			strings.Contains(text, base64.URLEncoding.EncodeToString(part)) {
			return true
		}
	}
	return false
}
