package disk

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/blockdev/luks"
	"sealblk/internal/leaktest"
)

// loopDevice makes a host block device of that size.
func loopDevice(t *testing.T, size int64) string {
	t.Helper()
	losetup := leaktest.Tool(t, "losetup")
	image := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(losetup, "--find", "--show", image).CombinedOutput()
	if err != nil {
		leaktest.Missing(t, "loop devices: "+strings.TrimSpace(string(out)))
	}
	path := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command(losetup, "--detach", path).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %s", path, out)
		}
	})
	return path
}

func writeDevice(t *testing.T, path string, data []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(data, at)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestDiskOnBlockDevice(t *testing.T) {
	path := loopDevice(t, 20<<20)
	c := newCatalogue(t)
	create := func(name string, size int64, encrypted bool) error {
		_, err := c.Create(t.Context(), CreateOptions{Name: name, SizeBytes: size, Encrypted: encrypted, Backend: "file:" + path})
		return err
	}
	if err := create("db", 5<<20, true); !errors.Is(err, ErrTooShort) {
		t.Fatalf("a disk that does not fit: %v", err)
	}
	if err := create("db", 4<<20, true); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, c, "db")
	if err := create("twin", 4<<20, false); !errors.Is(err, ErrExists) {
		t.Fatalf("a device with a disk on it: %v", err)
	}
	if err := os.Remove(c.recordPath("db")); err != nil {
		t.Fatal(err)
	}
	if err := create("db", 4<<20, true); !errors.Is(err, ErrExists) {
		t.Fatalf("a device with a disk that no record names: %v", err)
	}
	if _, err := c.Import(t.Context(), "db", "file:"+path); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete("db"); err != nil {
		t.Fatal(err)
	}
	if err := create("db", 20<<20, false); err != nil {
		t.Fatalf("a device whose disk was deleted: %v", err)
	}
	wantWhole(t, c, "db")
}

// TestFailedCreateOnBlockDevice: nothing that was on a device is lost, and what a create
// that failed or was killed put there is taken off again.
func TestFailedCreateOnBlockDevice(t *testing.T) {
	path := loopDevice(t, 20<<20)
	c := newCatalogue(t)
	o := CreateOptions{Name: "db", SizeBytes: 4 << 20, Encrypted: true, Backend: "file:" + path}
	for n := 1; ; n++ {
		left := n
		c.step = func(string) error {
			if left--; left == 0 {
				return errFault
			}
			return nil
		}
		_, err := c.Create(t.Context(), o)
		c.step = nil
		if err == nil {
			break
		}
		if left := c.pending(); !errors.Is(err, errFault) || len(left) > 0 {
			t.Fatalf("step %d: %v, half made: %v", n, err, left)
		}
		if f, err := os.Open(path); err != nil {
			t.Fatal(err)
		} else if _, err := luks.Open(f); !errors.Is(err, luks.ErrNoHeader) {
			t.Fatalf("step %d: the header is left: %v", n, err)
		} else {
			f.Close()
		}
	}
	if err := c.Delete("db"); err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{
		"data":                     bytes.Repeat([]byte("precious"), 512),
		"a damaged LUKS container": append([]byte("LUKS\xba\xbe\x00\x02"), make([]byte, 4088)...),
		"a late byte":              append(make([]byte, 4095), 1),
	} {
		writeDevice(t, path, data, 0)
		if _, err := c.Create(t.Context(), o); !errors.Is(err, ErrExists) {
			t.Errorf("%s: %v; want ErrExists", what, err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: it was overwritten: %v", what, err)
		}
		f.Close()
		if left := c.pending(); len(left) > 0 {
			t.Errorf("%s: half made: %v", what, left)
		}
	}
}

// TestDiskWithoutFile: a memory or null disk keeps its header, and with it its key, in
// the state directory.
func TestDiskWithoutFile(t *testing.T) {
	for _, backend := range []string{"memory:", "null:"} {
		for _, encrypted := range []bool{true, false} {
			c := newCatalogue(t)
			before := files(t, c.dir)
			mustCreate(t, c, CreateOptions{Name: "db", Backend: backend, Encrypted: encrypted, SectorSize: 4096})
			wantWhole(t, c, "db")
			if _, err := os.Lstat(c.headerPath("db")); (err == nil) != encrypted {
				t.Errorf("%s encrypted %v: header: %v", backend, encrypted, err)
			}
			if _, err := c.Import(t.Context(), "twin", backend); !errors.Is(err, ErrBackend) {
				t.Errorf("imported from %s: %v", backend, err)
			}
			if encrypted {
				detachedHeaderTampered(t, c)
			}
			if err := c.Delete("db"); err != nil {
				t.Fatal(err)
			}
			for _, d := range differ(before, files(t, c.dir)) {
				if d != "new: disks/other.json" && d != "new: headers/other.luks" {
					t.Errorf("%s: %s", backend, d)
				}
			}
		}
	}
}

func detachedHeaderTampered(t *testing.T, c *Catalogue) {
	mustCreate(t, c, CreateOptions{Name: "other", Backend: "memory:", Encrypted: true})
	good, err := os.ReadFile(c.headerPath("db"))
	if err != nil {
		t.Fatal(err)
	}
	others, err := os.ReadFile(c.headerPath("other"))
	if err != nil {
		t.Fatal(err)
	}
	for what, header := range map[string][]byte{"another disk's": others, "no": nil, "half a": good[:headerCopy/2], "a zero": make([]byte, 2*headerCopy)} {
		if err := os.WriteFile(c.headerPath("db"), header, 0o600); err != nil {
			t.Fatal(err)
		}
		if d, err := c.Open(t.Context(), "db", OpenOptions{}); err == nil {
			d.Close()
			t.Errorf("served with %s header", what)
		}
	}
	if err := os.WriteFile(c.headerPath("db"), good, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestGuestsContainerIsServed: a plain disk on which a guest keeps a LUKS container of
// its own stays a plain disk.
func TestGuestsContainerIsServed(t *testing.T) {
	c := newCatalogue(t)
	r := mustCreate(t, c, CreateOptions{Name: "db", SizeBytes: 32 << 20})
	crypt := leaktest.Tool(t, "cryptsetup")
	cmd := exec.Command(crypt, "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", r.Where())
	cmd.Stdin = strings.NewReader("a guest's passphrase")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantWhole(t, c, "db")
	if err := c.Delete("db"); err != nil {
		t.Fatal(err)
	}
}

// TestOneFileByManyNames: links do not make two disks of one file.
func TestOneFileByManyNames(t *testing.T) {
	c := newCatalogue(t)
	r := mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true})
	links := filepath.Join(c.dir, "links") // hard links do not leave their file system
	if err := os.Mkdir(links, 0o700); err != nil {
		t.Fatal(err)
	}
	hard, soft, folder := filepath.Join(links, "hard"), filepath.Join(links, "soft"), filepath.Join(links, "folder")
	if err := errors.Join(os.Link(r.Where(), hard), os.Symlink(r.Where(), soft), os.Symlink(filepath.Dir(r.Where()), folder)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{hard, soft, folder + "/db.img", filepath.Dir(r.Where()) + "/../volumes//db.img"} {
		if _, err := c.Create(t.Context(), CreateOptions{Name: "twin", SizeBytes: diskSize, Backend: "file:" + path}); !errors.Is(err, ErrExists) {
			t.Errorf("created on %s: %v", path, err)
		}
		if _, err := c.Import(t.Context(), "twin", "file:"+path); !errors.Is(err, ErrExists) {
			t.Errorf("imported from %s: %v", path, err)
		}
	}
	wantWhole(t, c, "db")
}
