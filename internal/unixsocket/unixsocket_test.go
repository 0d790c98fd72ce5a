package unixsocket

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenIsPrivateAndReachable(t *testing.T) {
	for _, name := range []string{"s", strings.Repeat("d", 60) + "/" + strings.Repeat("e", 60) + "/s"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		ln, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("mode %v, %v; want 0600", info.Mode(), err)
		}
		conn, err := Dial(context.Background(), path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		ln.Close()
	}
}

func TestListenLeavesTheLivingAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Fatalf("second listener: %v; want ErrInUse", err)
	}
	ln.Close() // as if the process had died: the file stays
	ln, err = Listen(path)
	if err != nil {
		t.Fatalf("a dead socket was not replaced: %v", err)
	}
	ln.Close()
}

func TestListenKeepsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil {
		t.Fatal("listened in place of a file")
	}
	if data, _ := os.ReadFile(path); string(data) != "data" {
		t.Fatal("the file is gone")
	}
}
