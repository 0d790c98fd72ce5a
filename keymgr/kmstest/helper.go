package kmstest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Main is leaktest.Main for packages that hold keys: it also fails on one that was not
// destroyed.
func Main(m *testing.M) {
	leaktest.Main(m, func() error {
		if n, size := secret.Live(); n != 0 {
			return fmt.Errorf("%d secrets with %d bytes were not destroyed", n, size)
		}
		return nil
	})
}

// Folder is a folder for the test, in memory where the host has a file system for that: a
// sync costs nothing there.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sealblk-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // it is in memory
	return dir
}

// Disk is the encryption context of a disk.
func Disk(id string) keymgr.Context { return keymgr.Context{keymgr.ContextDisk: id} }

// Generate makes a data key for the disk 1, which is destroyed when the test ends.
func Generate(t testing.TB, k keymgr.KMS, key string) (*secret.Buffer, keymgr.WrappedKey) {
	t.Helper()
	dk, w, err := k.GenerateDataKey(t.Context(), key, Disk("1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dk.Destroy)
	return dk, w
}

// WantOpens checks that a wrapped key of the disk 1 is this data key.
func WantOpens(t testing.TB, k keymgr.KMS, w keymgr.WrappedKey, dk *secret.Buffer) {
	t.Helper()
	got, err := k.Decrypt(t.Context(), w, Disk("1"))
	if err != nil {
		t.Errorf("Decrypt under %s: %v", w.URI, err)
		return
	}
	defer got.Destroy()
	if !got.Equal(dk) {
		t.Errorf("Decrypt under %s: another data key", w.URI)
	}
}

// WantDeadline checks that a caller's own deadline ends an unwrapping that gets no answer,
// and is no failure of the KMS.
func WantDeadline(t testing.TB, k keymgr.KMS, w keymgr.WrappedKey, net *Proxy) {
	t.Helper()
	net.Hang(t)
	defer net.Mend(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := k.Decrypt(ctx, w, Disk("1"))
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, keymgr.ErrUnreachable) {
		t.Errorf("Decrypt: %v", err)
	}
}

// Installed finds what scripts/setup-kms puts into the repository's folder .cache, or ends
// the test as leaktest.Missing does.
func Installed(t testing.TB, pattern, what string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if found, err := filepath.Glob(filepath.Join(dir, ".cache", pattern)); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	leaktest.Missing(t, what+" (make setup-kms installs it)")
	return ""
}

// WantError checks sentinel and code of an error ("" for any), and that it has advice
// and is one line.
func WantError(t testing.TB, what string, err, sentinel error, code string) {
	t.Helper()
	var e *keymgr.Error
	if !errors.Is(err, sentinel) || !errors.As(err, &e) {
		t.Errorf("%s: error %v, want %v", what, err, sentinel)
		return
	}
	if code != "" && e.Code != code {
		t.Errorf("%s: code %s, want %s: %v", what, e.Code, code, err)
	}
	if e.Hint == "" || strings.Contains(err.Error()+e.Hint, "\n") {
		t.Errorf("%s: %q, hint %q", what, err, e.Hint)
	}
}
