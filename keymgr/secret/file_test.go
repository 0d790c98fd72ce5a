package secret

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/internal/credential"
)

func fileOf(t *testing.T, content string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

func wantRead(t *testing.T, read func(context.Context, string, int) (*Buffer, error), name string, limit int, want string) {
	t.Helper()
	b, err := read(t.Context(), name, limit)
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Destroy()
	if string(b.Bytes()) != want {
		t.Errorf("read %d bytes, want %d", b.Len(), len(want))
	}
}

func TestReadFile(t *testing.T) {
	path := fileOf(t, "1234\n", 0o600)
	wantRead(t, ReadFile, path, 5, "1234\n")
	wantRead(t, ReadTextFile, path, 4, "1234")
	wantRead(t, ReadTextFile, fileOf(t, "1234", 0o400), 4, "1234")
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if err := os.WriteFile(filepath.Join(dir, "pin"), []byte("5678\n"), 0o440); err != nil {
		t.Fatal(err)
	}
	wantRead(t, ReadTextFile, "pin", 100, "5678")
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error)
	go func() { sent <- os.WriteFile(pipe, []byte("word\n"), 0) }()
	wantRead(t, ReadTextFile, pipe, 100, "word")
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestReadFileRefuses in one line that names the place, and shows nothing of the secret.
func TestReadFileRefuses(t *testing.T) {
	dir := t.TempDir()
	for what, c := range map[string]struct {
		name, env string
		sentinel  error
	}{
		"others may read": {fileOf(t, "1234", 0o640), dir, credential.ErrExposed},
		"no file":         {filepath.Join(dir, "none"), dir, fs.ErrNotExist},
		"empty":           {fileOf(t, "", 0o600), dir, ErrSize},
		"one newline":     {fileOf(t, "\n", 0o600), dir, ErrSize},
		"too long":        {fileOf(t, "123456789", 0o600), dir, ErrSize},
		"much too long":   {fileOf(t, "123456789abc", 0o600), dir, ErrSize},
		"a folder":        {dir, dir, unix.EISDIR},
		"no service":      {"pin", "", credential.ErrNoDirectory},
		"no credential":   {"pin", dir, fs.ErrNotExist},
		"nothing":         {"", dir, credential.ErrNoDirectory},
	} {
		t.Run(what, func(t *testing.T) {
			t.Setenv("CREDENTIALS_DIRECTORY", c.env)
			b, err := ReadTextFile(t.Context(), c.name, 8)
			b.Destroy()
			if !errors.Is(err, c.sentinel) || !strings.Contains(err.Error(), c.name) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "1234") {
				t.Errorf("error %v", err)
			}
		})
	}
}
