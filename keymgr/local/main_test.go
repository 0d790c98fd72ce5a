package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/secret"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("LOCAL_TEST_SERVICE_KEY"); dir != "" {
		os.Exit(printServiceKey(dir))
	}
	if dir := os.Getenv("LOCAL_TEST_OPEN"); dir != "" {
		os.Exit(openAgainAndAgain(dir))
	}
	kmstest.Main(m)
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// openAt opens a KMS for a test, at a fixed time, and makes one if there is none.
func openAt(t testing.TB, dir string) *KMS {
	t.Helper()
	k, err := Open(dir, Options{Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	if k.store.root == nil {
		if err := k.store.prepare(); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// newKMS is a KMS in a folder of its own.
func newKMS(t testing.TB) *KMS {
	t.Helper()
	return openAt(t, newFolder(t))
}

// newKey makes a CMK that the disk service may use for everything but administration.
func newKey(t testing.TB, k *KMS) string {
	t.Helper()
	info, err := k.CreateKey(t.Context(), CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Authorize(t.Context(), info.KeyID, DiskService, []Permission{Generate, Decrypt, ReEncrypt}); err != nil {
		t.Fatal(err)
	}
	return info.KeyID
}

func disk(id string) keymgr.Context { return keymgr.Context{keymgr.ContextDisk: id} }

// generate makes a data key for disk-1 as the disk service.
func generate(t *testing.T, k *KMS, key string) (*secret.Buffer, keymgr.WrappedKey) {
	t.Helper()
	return kmstest.Generate(t, k.As(DiskService), key)
}

// wantOpens checks that a wrapped key opens to a data key.
func wantOpens(t *testing.T, k *KMS, w keymgr.WrappedKey, dk *secret.Buffer) {
	t.Helper()
	kmstest.WantOpens(t, k.As(DiskService), w, dk)
}

// wantError checks sentinel and code of an error, and that it and its hint are one
// line each.
func wantError(t *testing.T, what string, err, sentinel error, code string) *keymgr.Error {
	t.Helper()
	var e *keymgr.Error
	if !errors.Is(err, sentinel) || !errors.As(err, &e) || e.Code != code {
		t.Errorf("%s: error %v, want %v with code %s", what, err, sentinel, code)
		return &keymgr.Error{}
	}
	if strings.Contains(err.Error()+e.Hint, "\n") || !strings.Contains(err.Error(), code) {
		t.Errorf("%s: %q, hint %q", what, err, e.Hint)
	}
	return e
}

// setState puts a key into any state, by the way in which all changes are stored.
func setState(t *testing.T, k *KMS, id string, state keymgr.State) {
	t.Helper()
	s, err := k.store.begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer s.end()
	r, err := s.load(id)
	if err != nil {
		t.Fatal(err)
	}
	r.State, r.DeletionDate = state, nil
	if state == keymgr.PendingDeletion {
		when := noon.AddDate(0, 0, 7)
		r.DeletionDate = &when
	}
	if err := s.commit(r); err != nil {
		t.Fatal(err)
	}
}

// newFolder is a path for a KMS, in memory where the host has a file system for that:
// the tests sync thousands of files.
func newFolder(t testing.TB) string {
	t.Helper()
	return filepath.Join(kmstest.Folder(t), "kms")
}
