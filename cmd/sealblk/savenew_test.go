package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSaveNewIsWholeOrNotThere: whoever is killed over it leaves no file that is taken for
// a whole one.
func TestSaveNewIsWholeOrNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("b", 255))
	err := saveNew(path, func(w io.Writer) error {
		for _, part := range []string{"wh", "ole"} {
			if _, err := io.WriteString(w, part); err != nil {
				return err
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it has its name after %q: %v", part, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	wantAlone(t, path, "whole")
}

// TestSaveNewTakesNoName: what came to be under the name meanwhile stays, and nothing else.
func TestSaveNewTakesNoName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	err := saveNew(path, func(w io.Writer) error {
		if err := os.WriteFile(path, []byte("another's"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := io.WriteString(w, "mine")
		return err
	})
	if !errors.Is(err, fs.ErrExist) || strings.Contains(err.Error(), ".part") {
		t.Errorf("over what is there: %v", err)
	}
	wantAlone(t, path, "another's")
	gaveUp := errors.New("given up")
	if err := saveNew(path+"2", func(io.Writer) error { return gaveUp }); !errors.Is(err, gaveUp) {
		t.Errorf("given up: %v", err)
	}
	wantAlone(t, path, "another's")
	if err := saveNew(path+"/c", func(io.Writer) error { return nil }); err == nil || strings.Contains(err.Error(), ".part") {
		t.Errorf("in a folder that is none: %v", err)
	}
}

// wantAlone fails unless the folder of a file holds just that, with its content.
func wantAlone(t *testing.T, path, content string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != content {
		t.Errorf("holds %q, %v, want %q", got, err, content)
	}
	if found, err := os.ReadDir(filepath.Dir(path)); err != nil || len(found) != 1 {
		t.Errorf("in the folder: %v, %v", found, err)
	}
}
