package linkname

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestPublicNamePasses: the name leads to the file that was put last, and only its
// file's end takes it away.
func TestPublicNamePasses(t *testing.T) {
	dir := t.TempDir()
	public := filepath.Join(dir, "public")
	file := func(name string) Name {
		n := Name{filepath.Join(dir, name), public}
		if err := os.WriteFile(n.Own, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		return n
	}
	leads := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(public); err != nil || string(got) != want {
			t.Fatalf("the public name leads to %q, %v, want %q", got, err, want)
		}
	}
	a, b := file("a"), file("b")
	for range 2 { // the second time changes nothing
		if err := a.Put(); err != nil {
			t.Fatal(err)
		}
		leads("a")
	}
	if err := b.Put(); err != nil {
		t.Fatal(err)
	}
	leads("b")
	if err := errors.Join(a.Put(), b.Put()); err != nil {
		t.Fatal(err)
	}
	leads("b")
	if err := a.Remove(); err != nil {
		t.Fatal(err)
	}
	leads("b")
	if err := errors.Join(b.Remove(), b.Remove()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if err := a.Put(); err == nil {
		t.Error("a file that has gone got a name")
	}
}

func TestSocketsHaveNamesToo(t *testing.T) {
	dir := t.TempDir()
	n := Name{filepath.Join(dir, "own"), filepath.Join(dir, "public")}
	ln, err := net.Listen("unix", n.Own)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := n.Put(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", n.Public)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
