package keymgr

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sealblk/keymgr/secret"
)

// fake is a KMS that notes what it is asked, and answers with its data key.
type fake struct {
	calls  []string
	dk     []byte
	errs   []error // of the next calls
	closed bool
}

func (f *fake) answer(call string) error {
	f.calls = append(f.calls, call)
	if len(f.errs) == 0 {
		return nil
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return err
}

func (f *fake) key() (*secret.Buffer, error) {
	b, err := secret.New(len(f.dk))
	if err == nil {
		copy(b.Bytes(), f.dk)
	}
	return b, err
}

func (f *fake) GenerateDataKey(_ context.Context, key string, _ Context) (*secret.Buffer, WrappedKey, error) {
	if err := f.answer("generate " + key); err != nil {
		return nil, WrappedKey{}, err
	}
	b, err := f.key()
	return b, WrappedKey{URI: "fake:" + key}, err
}

func (f *fake) GenerateDataKeyWithoutPlaintext(_ context.Context, key string, _ Context) (WrappedKey, error) {
	return WrappedKey{URI: "fake:" + key}, f.answer("generate-without " + key)
}

func (f *fake) Decrypt(_ context.Context, w WrappedKey, _ Context) (*secret.Buffer, error) {
	if err := f.answer("decrypt " + w.URI); err != nil {
		return nil, err
	}
	return f.key()
}

func (f *fake) ReEncrypt(_ context.Context, w WrappedKey, _ Context, key string) (WrappedKey, error) {
	return WrappedKey{URI: "fake:" + key}, f.answer("re-encrypt " + w.URI + " " + key)
}

func (f *fake) DescribeKey(_ context.Context, key string) (KeyInfo, error) {
	return KeyInfo{KeyID: key}, f.answer("describe " + key)
}

func (f *fake) Close() error { f.closed = true; return nil }

func goodKey() []byte { return append(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)...) }

// newSet is a set of two KMSs; opened counts how often the fake was opened.
func newSet(f *fake, opened *int) *Set {
	var waits []time.Duration
	return NewSet(recorded(&waits), map[string]Opener{
		"fake":  func(context.Context) (KMS, error) { *opened++; return f, f.answer("open") },
		"local": func(context.Context) (KMS, error) { return nil, errors.New("must not be opened") },
	})
}

func TestSetRoutesByScheme(t *testing.T) {
	f, opened := &fake{dk: goodKey()}, 0
	s := newSet(f, &opened)
	dk, w, err := s.GenerateDataKey(t.Context(), "fake:k", nil)
	if err != nil || dk.Len() != DataKeySize || w.URI != "fake:k" {
		t.Fatalf("GenerateDataKey: %v, %+v", err, w)
	}
	dk.Destroy()
	if _, err := s.GenerateDataKeyWithoutPlaintext(t.Context(), "fake:k", nil); err != nil {
		t.Error(err)
	}
	dk, err = s.Decrypt(t.Context(), w, nil)
	if err != nil {
		t.Fatal(err)
	}
	dk.Destroy()
	if w, err := s.ReEncrypt(t.Context(), w, nil, "fake:n"); err != nil || w.URI != "fake:n" {
		t.Errorf("ReEncrypt: %+v, %v", w, err)
	}
	if info, err := s.DescribeKey(t.Context(), "fake:k"); err != nil || info.KeyID != "k" {
		t.Errorf("DescribeKey: %+v, %v", info, err)
	}
	want := "open, generate k, generate-without k, decrypt fake:k, re-encrypt fake:k n, describe k"
	if got := strings.Join(f.calls, ", "); got != want || opened != 1 {
		t.Errorf("calls %s, opened %d times", got, opened)
	}
	if err := s.Close(); err != nil || !f.closed {
		t.Errorf("Close: %v, closed %v", err, f.closed)
	}
}

func TestSetRetriesOpenAndCall(t *testing.T) {
	f, opened := &fake{dk: goodKey(), errs: []error{ErrUnreachable, nil, ErrThrottled, ErrUnreachable}}, 0
	if _, err := newSet(f, &opened).DescribeKey(t.Context(), "fake:k"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.calls, ", "); got != "open, open, describe k, describe k, describe k" {
		t.Errorf("calls %s", got)
	}
}

func TestSetRefusesUnfitDataKeys(t *testing.T) {
	live, _ := secret.Live()
	for name, c := range map[string]struct {
		dk   []byte
		want error
	}{
		"equal halves": {bytes.Repeat([]byte{7}, 64), ErrWeakKey},
		"short":        {make([]byte, 32), ErrCorrupt},
	} {
		f, opened := &fake{dk: c.dk}, 0
		s := newSet(f, &opened)
		if dk, _, err := s.GenerateDataKey(t.Context(), "fake:k", nil); dk != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: GenerateDataKey %v", name, err)
		}
		if dk, err := s.Decrypt(t.Context(), WrappedKey{URI: "fake:k"}, nil); dk != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: Decrypt %v", name, err)
		}
	}
	if n, _ := secret.Live(); n != live {
		t.Errorf("%d refused data keys are still in memory", n-live)
	}
}

func TestSetRefusesStrangers(t *testing.T) {
	f, opened := &fake{}, 0
	s := newSet(f, &opened)
	_, err := s.DescribeKey(t.Context(), "vault:m/k")
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrInvalid) || e.Hint != "known are: fake, local" {
		t.Errorf("unknown scheme: %v", err)
	}
	_, err = s.ReEncrypt(t.Context(), WrappedKey{URI: "fake:k"}, nil, "vault:m/k")
	if !errors.As(err, &e) || !strings.Contains(e.Hint, "one KMS only") {
		t.Errorf("re-encrypt across KMSs: %v", err)
	}
	if _, err := s.Decrypt(t.Context(), WrappedKey{}, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("wrapped key without a URI: %v", err)
	}
}
