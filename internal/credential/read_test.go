package credential

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newPipe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// writer opens a pipe to write to, which waits for who reads it.
func writer(t *testing.T, path string) *os.File {
	t.Helper()
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

type result struct {
	text string
	err  error
}

func reading(ctx context.Context, path string) <-chan result {
	read := make(chan result, 1)
	go func() {
		data, err := Read(ctx, path)
		read <- result{string(data), err}
	}()
	return read
}

func TestPipe(t *testing.T) {
	path := newPipe(t)
	for _, parts := range [][]string{{"open sesame"}, {"open", " ", "sesame"}, {}, {strings.Repeat("x", maxSize)}} {
		read := reading(t.Context(), path)
		w := writer(t, path)
		for _, p := range parts {
			if _, err := w.WriteString(p); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		if r := <-read; r.err != nil || r.text != strings.Join(parts, "") {
			t.Errorf("%d parts: %d bytes, %v", len(parts), len(r.text), r.err)
		}
	}
}

// TestPipeWithoutEnd is not read without one.
func TestPipeWithoutEnd(t *testing.T) {
	path := newPipe(t)
	read := reading(t.Context(), path)
	w := writer(t, path)
	var err error
	for err == nil {
		_, err = w.WriteString(strings.Repeat("x", 1<<16))
	}
	if r := <-read; r.err == nil || !strings.Contains(r.err.Error(), "more than") || !errors.Is(err, unix.EPIPE) {
		t.Errorf("Read: %v; its writer: %v", r.err, err)
	}
}

// TestPipeIsGivenUp when nobody opens it, and when who did writes no end.
func TestPipeIsGivenUp(t *testing.T) {
	path := newPipe(t)
	for _, half := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		read := reading(ctx, path)
		if half {
			writer(t, path).WriteString("half")
		}
		cancel()
		if r := <-read; !errors.Is(r.err, context.Canceled) || r.text != "" || !strings.Contains(r.err.Error(), path) {
			t.Errorf("half %v: %v", half, r.err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if r := <-reading(ctx, path); !errors.Is(r.err, ErrSilent) || !strings.Contains(r.err.Error(), path) {
		t.Errorf("in time: %v", r.err)
	}
}

func TestIsPipe(t *testing.T) {
	pipe := newPipe(t)
	for path, want := range map[string]bool{pipe: true, filepath.Dir(pipe): false, pipe + "none": false, "name": false} {
		if IsPipe(path) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
}
