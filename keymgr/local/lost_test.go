package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/keymgr"
)

// TestLost: a KMS that was lost is not replaced by the way.
func TestLost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kms")
	var wrapped []string
	var failure error
	meanwhile := func() {}
	k, err := Open(dir, Options{Principal: DiskService, Wrapped: func(context.Context) ([]string, error) {
		meanwhile()
		return wrapped, failure
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	generate := func() error {
		dk, _, err := k.GenerateDataKey(t.Context(), "", keymgr.Context{keymgr.ContextDisk: "d"})
		dk.Destroy()
		return err
	}
	for n, named := range map[int]string{1: "wrap d0: ", 2: "wrap d0 and d1: ", 3: "wrap d0, d1 and d2: ", 5: "wrap d0, d1, d2 and 2 more: "} {
		wrapped = nil
		for i := range n {
			wrapped = append(wrapped, fmt.Sprint("d", i))
		}
		var e *keymgr.Error
		if err := generate(); !errors.As(err, &e) || e.Code != CodeLost || !errors.Is(err, keymgr.ErrNotFound) || !strings.Contains(err.Error(), named) {
			t.Errorf("%d are wrapped: %v, want %q", n, err, named)
		}
	}
	failure = errors.New("catalogue is damaged")
	if err := generate(); !errors.Is(err, failure) {
		t.Errorf("not known: %v", err)
	}
	if there, err := k.store.there(); there || err != nil {
		t.Fatalf("made one: %v, %v", there, err)
	}
	// Another makes the KMS, and then what it wraps.
	failure, wrapped = nil, []string{"d"}
	meanwhile = func() {
		other, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if _, err := other.CreateKey(t.Context(), CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := generate(); err != nil {
		t.Errorf("made meanwhile: %v", err)
	}
}
