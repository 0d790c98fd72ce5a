package keymgr

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sealblk/keymgr/secret"
)

// wrapping is a fake that wraps and records.
type wrapping struct{ fake }

func (f *wrapping) Wrap(_ context.Context, key string, _ *secret.Buffer, _ Context) (WrappedKey, error) {
	return WrappedKey{URI: "fake:" + key, Blob: []byte("wrapped")}, f.answer("wrap " + key)
}

func (f *wrapping) Record(_ context.Context, e Event) error {
	return f.answer("record " + e.Operation + " " + e.URI)
}

func locked(t *testing.T, key []byte) *secret.Buffer {
	t.Helper()
	b, err := secret.New(len(key))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Destroy)
	copy(b.Bytes(), key)
	return b
}

func TestSetWrapsAndRecords(t *testing.T) {
	f := &wrapping{fake{errs: []error{nil, ErrThrottled}}}
	var waits []time.Duration
	s := NewSet(recorded(&waits), map[string]Opener{"fake": func(context.Context) (KMS, error) { return f, f.answer("open") }})
	if w, err := s.Wrap(t.Context(), "fake:k", locked(t, goodKey()), nil); err != nil || w.URI != "fake:k" || string(w.Blob) != "wrapped" {
		t.Errorf("Wrap: %+v, %v", w, err)
	}
	if err := s.Record(t.Context(), Event{Operation: EventErase, URI: "fake:k"}); err != nil {
		t.Errorf("Record: %v", err)
	}
	if got := strings.Join(f.calls, ", "); got != "open, wrap k, wrap k, record EraseDataKey fake:k" {
		t.Errorf("calls %s", got)
	}
}

// TestSetRefusesToWrap: where the KMS cannot, at once and with a clear error; and
// nothing that no disk may be encrypted with.
func TestSetRefusesToWrap(t *testing.T) {
	f, opened := &fake{}, 0
	s := newSet(f, &opened)
	_, err := s.Wrap(t.Context(), "fake:k", locked(t, goodKey()), nil)
	var e *Error
	if !errors.Is(err, ErrUnsupported) || !errors.As(err, &e) || e.Key != "fake:k" || e.Hint == "" {
		t.Errorf("a KMS that cannot: %v", err)
	}
	if err := s.Record(t.Context(), Event{URI: "fake:k"}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a KMS that keeps no audit for others: %v", err)
	}
	if _, err := s.Wrap(t.Context(), "fake:k", locked(t, make([]byte, 64)), nil); !errors.Is(err, ErrWeakKey) {
		t.Errorf("equal halves: %v", err)
	}
	if got := strings.Join(f.calls, ", "); got != "open" {
		t.Errorf("calls %s", got)
	}
}
