package disk

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/internal/leaktest"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childMark {
		os.Exit(child(os.Args[2:]))
	}
	afterKill = 0 // who has a disk here keeps it
	leaktest.Main(m, func() error {
		if n, size := secret.Live(); n != 0 {
			return fmt.Errorf("%d secrets of %d bytes left", n, size)
		}
		return nil
	})
}

const diskSize = 1 << 20

// openCatalogue opens a state directory with its embedded KMS.
func openCatalogue(dir string) (*Catalogue, func(), error) {
	keys := keymgr.NewSet(keymgr.DefaultRetry, map[string]keymgr.Opener{
		keymgr.SchemeLocal: func(context.Context) (keymgr.KMS, error) {
			return local.Open(filepath.Join(dir, "kms"), local.Options{Principal: local.DiskService})
		},
	})
	c, err := OpenCatalogue(dir, keys)
	return c, func() { keys.Close() }, err
}

func newCatalogue(t *testing.T) *Catalogue {
	t.Helper()
	c, stop, err := openCatalogue(newDir(t))
	t.Cleanup(stop)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newDir is a directory in memory, where a sync costs nothing, if it can be.
func newDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "sealblk-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func mustCreate(t *testing.T, c *Catalogue, o CreateOptions) Record {
	t.Helper()
	if o.SizeBytes == 0 {
		o.SizeBytes = diskSize
	}
	r, err := c.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantWhole fails unless a disk is there with nothing wrong.
func wantWhole(t *testing.T, c *Catalogue, name string) {
	t.Helper()
	found, err := c.Check(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Result != OK {
			t.Fatalf("disk %s: %s: %s", name, f.Check, f.Detail)
		}
	}
	d, err := c.Open(t.Context(), name, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Device.Info().Capacity; got != d.Record.SizeBytes {
		t.Fatalf("disk %s has %d bytes, want %d", name, got, d.Record.SizeBytes)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// some is every case, or a few under -short: the race detector makes them ten times as
// long and finds what it finds in any of them.
func some[T any](cases map[string]T) map[string]T {
	if !testing.Short() {
		return cases
	}
	few := map[string]T{}
	for name, c := range cases {
		if few[name] = c; len(few) == 6 {
			break
		}
	}
	return few
}

// files are the files below a directory with their content. Locks and the KMS, which
// may write what it likes, are left out.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, dir+"/")
		if err != nil || e.IsDir() || strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, "kms/") {
			return err
		}
		if !e.Type().IsRegular() {
			found[name] = []byte(e.Type().String())
			return nil
		}
		found[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// differ names the files that are not the same in both.
func differ(a, b map[string][]byte) (names []string) {
	for name, data := range a {
		if other, ok := b[name]; !ok {
			names = append(names, "gone: "+name)
		} else if !bytes.Equal(data, other) {
			names = append(names, "changed: "+name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, "new: "+name)
		}
	}
	return names
}
