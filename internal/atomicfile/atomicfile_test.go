package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, content := range []string{"a long first content", "short", ""} {
		if err := Write(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v; want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v; want 0600", info.Mode(), err)
	}
	onlyFile(t, path)
}

// TestWriteHere: a bare name is in the current folder, and so is its temporary file.
func TestWriteHere(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("TMPDIR", "/proc") // where no file can be made
	if err := Write("f", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	onlyFile(t, "f")
}

func TestFailedWriteKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.Mkdir(path, 0o700); err != nil { // a folder cannot be replaced by a file
		t.Fatal(err)
	}
	if err := Write(path, []byte("new"), 0o600); err == nil {
		t.Fatal("replaced a folder")
	}
	onlyFile(t, path)
}

func TestWriteNeedsItsFolder(t *testing.T) {
	if err := Write(filepath.Join(t.TempDir(), "no", "f"), nil, 0o600); err == nil {
		t.Fatal("wrote into a folder that is not there")
	}
}

func TestRemoveTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := Write(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// onlyFile fails if anything but path is in its folder: a temporary file was left.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Fatalf("left in the folder: %v", entries)
	}
}

// TestSweep: what a killed write left goes, if its file is dead; nothing else does.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.b")
	if err := Write(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	left, err := os.CreateTemp(dir, pattern("a.b"))
	if err != nil {
		t.Fatal(err)
	}
	left.Close()
	dead := func(name string) bool { return name == "a.b" }
	keep := []string{".other.1.tmp", ".a.b.mine.tmp", "a.b.1.tmp", ".a.b.tmp"}
	for _, name := range keep {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir, dead); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(left.Name()); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", left.Name(), err)
	}
	for _, name := range keep {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	onlyFile(t, path)
	if err := Sweep(filepath.Join(dir, "no"), dead); err == nil {
		t.Error("swept a folder that is not there")
	}
}
