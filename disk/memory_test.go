package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sealblk/internal/leaktest"
	"sealblk/internal/sigmask"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

func init() {
	for name, sealed := range map[string]bool{"everything, then scan": false, "everything without plaintext, then scan": true} {
		operations[name] = func(ctx context.Context, c *Catalogue) error {
			return scanScenario(ctx, c, CreateOptions{Name: "db", SizeBytes: diskSize, Encrypted: true, NoPlaintext: sealed})
		}
	}
}

// TestNoKeyLeftInMemory: a process that made, checked, imported, opened and re-wrapped a disk, with
// success and without, has no piece of its data key anywhere but in locked memory.
func TestNoKeyLeftInMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector's memory is too large to scan; the test runs without it")
	}
	b, err := secret.New(64)
	if err != nil {
		t.Fatal(err)
	}
	hidden := b.Backing() == secret.MemfdSecret
	b.Destroy()
	if !hidden {
		leaktest.Missing(t, "memfd_secret, without which locked memory cannot be told from other memory (Linux 6.5, or secretmem.enable=1)")
	}
	for _, what := range []string{"everything, then scan", "everything without plaintext, then scan"} {
		if out, err := childCommand(t, newDir(t), 0, what).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", what, err, out)
		}
	}
}

func scanScenario(ctx context.Context, c *Catalogue, o CreateOptions) error {
	r, err := c.Create(ctx, o)
	if err != nil {
		return err
	}
	if _, err := c.Check(ctx, "db"); err != nil {
		return err
	}
	if err := os.Remove(c.recordPath("db")); err != nil {
		return err
	}
	if _, err := c.Import(ctx, "db", r.Backend); err != nil {
		return err
	}
	d, err := c.Open(ctx, "db", OpenOptions{})
	if err != nil {
		return err
	}
	if err := d.Close(); err != nil {
		return err
	}
	if err := failsWithKey(ctx, c); err != nil {
		return err
	}
	if err := wrapsKey(ctx, c, r.KeyID); err != nil {
		return err
	}
	dk, err := c.ExportKey(ctx, "db", "k")
	if err != nil {
		return err
	}
	defer dk.Destroy()
	runtime.GC()
	if at := findIn(dk.Bytes()); at != "" {
		return fmt.Errorf("a piece of the data key is at %s", at)
	}
	planted := bytes.Clone(dk.Bytes()[32:])
	if findIn(dk.Bytes()) == "" {
		return errors.New("the scan finds nothing, not even what was planted")
	}
	runtime.KeepAlive(planted)
	return nil
}

// wrapsKey has the key wrapped anew, inside the KMS and through this process.
func wrapsKey(ctx context.Context, c *Catalogue, cmk string) error {
	operator, err := local.Open(filepath.Join(c.dir, "kms"), local.Options{})
	if err != nil {
		return err
	}
	defer operator.Close()
	if _, err := operator.RotateKey(ctx, cmk); err != nil {
		return err
	}
	if _, err := c.Rewrap(ctx, "db", RewrapOptions{}); err != nil {
		return err
	}
	dk, err := c.ExportKey(ctx, "db", "k")
	if err != nil {
		return err
	}
	defer dk.Destroy()
	_, err = c.keys.(keymgr.Wrapper).Wrap(ctx, "local:"+cmk, dk, contextOf("d-000000000000000000"))
	return err
}

// failsWithKey opens a disk whose key unwraps and whose file then turns out too short.
func failsWithKey(ctx context.Context, c *Catalogue) error {
	r, err := c.Get("db")
	if err != nil {
		return err
	}
	if err := os.Truncate(r.Where(), r.fileSize()-512); err != nil {
		return err
	}
	if d, err := c.Open(ctx, "db", OpenOptions{}); err == nil {
		return errors.Join(errors.New("served a disk that is too short"), d.Close())
	}
	return os.Truncate(r.Where(), r.fileSize())
}

// findIn looks through all memory that can be written, but for locked memory, which
// nobody can read from outside, for 16 bytes of a key in a row. No signal interrupts it:
// it has the key in its own registers.
func findIn(key []byte) (at string) {
	if err := sigmask.Do(func() error { at = scan(key); return nil }); err != nil {
		return err.Error()
	}
	return at
}

func scan(key []byte) string {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err.Error()
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return err.Error()
	}
	defer mem.Close()
	buf := make([]byte, 1<<20)
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var perm string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perm); err != nil || !strings.HasPrefix(perm, "rw") {
			continue
		}
		for at := from; at < to; at += int64(len(buf)) {
			part := buf[:min(int64(len(buf)), to-at)]
			if _, err := mem.ReadAt(part, at); err != nil {
				continue
			}
			for k := 0; k+16 <= len(key); k += 16 {
				if i := bytes.Index(part, key[k:k+16]); i >= 0 {
					return fmt.Sprintf("%#x in %s", at+int64(i), line)
				}
			}
		}
	}
	return ""
}
