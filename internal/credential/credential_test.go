package credential

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func write(t *testing.T, path, text string, mode fs.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrivateFile(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "c"), "open sesame", 0o600)
	if data, err := Read(t.Context(), path); err != nil || string(data) != "open sesame" {
		t.Errorf("Read: %q, %v", data, err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o660, 0o644} {
		write(t, path, "open sesame", mode)
		_, err := Read(t.Context(), path)
		if !errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestFileOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := write(t, filepath.Join(t.TempDir(), "c"), "open sesame", 0o600)
	if err := os.Chown(path, 65534, -1); err != nil {
		t.Fatal(err)
	}
	_, err := Read(t.Context(), path)
	if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "sesame") {
		t.Errorf("Read: %v", err)
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := Read(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Read: %v", err)
	}
}

func TestSystemdCredential(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := Read(t.Context(), "token"); !errors.Is(err, ErrNoDirectory) {
		t.Errorf("without a directory: %v", err)
	}
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	write(t, filepath.Join(dir, "token"), "x", 0o440) // as systemd does it with an access list
	if data, err := Read(t.Context(), "token"); err != nil || string(data) != "x" {
		t.Errorf("Read: %q, %v", data, err)
	}
	for _, name := range []string{"", ".", "..", "none"} {
		if _, err := Read(t.Context(), name); err == nil {
			t.Errorf("%q is read", name)
		}
	}
}

func TestTooLarge(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "c"), strings.Repeat("x", maxSize+1), 0o600)
	if _, err := Read(t.Context(), path); err == nil {
		t.Error("a credential without a limit is read")
	}
}
