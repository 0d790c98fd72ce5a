package unixsocket

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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

func TestRemoveLeavesAnothersSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := os.Remove(path); err != nil { // as an operator who cleans up too early
		t.Fatal(err)
	}
	second, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := first.Remove(); err != nil {
		t.Fatal(err)
	}
	conn, err := Dial(context.Background(), path)
	if err != nil {
		t.Fatalf("the second listener lost its socket: %v", err)
	}
	conn.Close()
	for range 2 {
		if err := second.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the socket is left: %v", err)
	}
}

// TestNamesOfEveryLength: from the longest that fits an address to the longest that a
// file may have, a socket can be reached or the error says why not.
func TestNamesOfEveryLength(t *testing.T) {
	dir := t.TempDir()
	for n := 1; n < 250; n += 7 {
		path := filepath.Join(dir, strings.Repeat("s", n))
		ln, err := Listen(path)
		if err != nil {
			if len(path) <= maxPath {
				t.Fatalf("%d bytes: %v", len(path), err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("error of several lines: %q", err)
			}
			continue
		}
		conn, err := Dial(context.Background(), path)
		if err != nil {
			t.Fatalf("%d bytes: listens, but %v", len(path), err)
		}
		conn.Close()
		ln.Close()
	}
}

// TestListenLeavesTheBusyAlone: a listener whose queue is full is alive.
func TestListenLeavesTheBusyAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		var conn net.Conn
		if conn, err = Dial(context.Background(), path); err == nil {
			defer conn.Close()
		}
	}
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Fatalf("second listener: %v; want ErrInUse", err)
	}
}
