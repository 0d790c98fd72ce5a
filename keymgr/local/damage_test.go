package local

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sealblk/keymgr"
)

// use opens a KMS and looks at all of it; the error is what a user sees.
func use(t *testing.T, dir string) error {
	t.Helper()
	k, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	defer k.Close()
	_, err = k.ListKeys(t.Context())
	return err
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantDamage checks that an error is ErrCorrupt, names the file and says how to mend
// it.
func wantDamage(t *testing.T, what string, err error, file string) {
	t.Helper()
	var e *keymgr.Error
	if !errors.Is(err, keymgr.ErrCorrupt) || !errors.As(err, &e) || e.Hint == "" || !strings.Contains(err.Error(), file) {
		t.Errorf("%s: error %v does not name %s", what, err, file)
	}
}

// storedFiles are the names of the files of a KMS, without the lock.
func storedFiles(t *testing.T, dir string) []string {
	t.Helper()
	keys, err := filepath.Glob(filepath.Join(dir, "keys", "*.json"))
	if err != nil || len(keys) != 4 {
		t.Fatalf("%d key files, %v", len(keys), err)
	}
	names := []string{"index.json"}
	for _, path := range keys {
		names = append(names, "keys/"+filepath.Base(path))
	}
	return names
}

// stride is how far apart the bytes are that a test of every byte alters: 1, but where
// tests shall be short.
func stride() int {
	if testing.Short() {
		return 11
	}
	return 1
}

// eachFlip calls f with a file that differs from a good one in one bit, for every byte
// of it and each bit in turn, and puts the good one back.
func eachFlip(t *testing.T, path string, f func(what string, at int)) {
	t.Helper()
	good := readFile(t, path)
	for i := 0; i < len(good); i += stride() {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		writeFile(t, path, bad)
		f(fmt.Sprintf("bit %d of byte %d of %s", i%8, i, filepath.Base(path)), i)
	}
	writeFile(t, path, good)
}

// TestEveryByteOfTheStore alters every file of a KMS at every byte: the damage is found
// when the KMS is used, and the file is named.
func TestEveryByteOfTheStore(t *testing.T) {
	dir, w, dk := populated(t)
	wrapped := copyFolder(t, dir)
	opts := rooted("", map[string]RootSource{RootPassphrase: asks(t, "correct horse")})
	k := openWith(t, wrapped, opts)
	if err := k.SetRootSource(t.Context(), RootPassphrase, opts.Sources[RootPassphrase]); err != nil {
		t.Fatal(err)
	}
	k.Close()
	for _, name := range append(storedFiles(t, dir), rootFile) {
		path := filepath.Join(dir, name)
		eachFlip(t, path, func(what string, _ int) { wantDamage(t, what, use(t, dir), path) })
	}
	path := filepath.Join(wrapped, rootWrapped)
	eachFlip(t, path, func(what string, _ int) {
		_, err := Open(wrapped, opts)
		wantDamage(t, what, err, path)
	})
	wantOpens(t, openAt(t, dir), w, dk)
	wantOpens(t, openWith(t, wrapped, opts), w, dk)
}

// TestEveryByteOfTheAuditLog: what the index still has is mended, the rest is named.
func TestEveryByteOfTheAuditLog(t *testing.T) {
	dir, records := longLog(t)
	path := filepath.Join(dir, auditFile)
	good := readFile(t, path)
	durable := bytes.Index(good, fmt.Appendf(nil, `{"number":%d,`, maxTail+1))
	eachFlip(t, path, func(what string, at int) {
		n, err := verify(t, dir)
		if at < durable {
			wantDamage(t, what, err, auditFile)
			wantDamage(t, what, err, fmt.Sprintf("record %d ", 1+bytes.Count(good[:at], []byte("\n"))))
		} else if err != nil || n != uint64(records) || !bytes.Equal(readFile(t, path), good) {
			t.Errorf("%s: %d records, %v", what, n, err)
		}
	})
}

// TestEveryBitOfAWrappedKey: each is detected, and none leads to a data key.
func TestEveryBitOfAWrappedKey(t *testing.T) {
	k := newKMS(t)
	dk, w := generate(t, k, newKey(t, k))
	for i := range w.Blob {
		for bit := 0; bit < 8; bit += stride() {
			bad := w
			bad.Blob = bytes.Clone(w.Blob)
			bad.Blob[i] ^= 1 << bit
			got, err := k.As(DiskService).Decrypt(t.Context(), bad, disk("1"))
			if !errors.Is(err, keymgr.ErrCorrupt) {
				got.Destroy()
				t.Errorf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
	wantOpens(t, k, w, dk)
}

func TestAlteredFilesAreNamed(t *testing.T) {
	dir, _, _ := populated(t)
	for _, name := range storedFiles(t, dir)[:2] {
		path := filepath.Join(dir, name)
		good := readFile(t, path)
		for _, n := range []int{0, 1, len(good) / 2, len(good) - 2, len(good) - 1} {
			writeFile(t, path, good[:n])
			wantDamage(t, "torn", use(t, dir), path)
		}
		writeFile(t, path, append(bytes.Clone(good), ' '))
		wantDamage(t, "longer", use(t, dir), path)
		writeFile(t, path, make([]byte, len(good)))
		wantDamage(t, "zeros", use(t, dir), path)
		writeFile(t, path, bytes.Replace(good, []byte(`"version":1`), []byte(`"version":2`), 1))
		wantDamage(t, "newer", use(t, dir), "newer than this program")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		wantDamage(t, "missing", use(t, dir), path)
		writeFile(t, path, good)
		if err := use(t, dir); err != nil {
			t.Fatalf("restored: %v", err)
		}
	}
}

func TestEditedRecordIsRefused(t *testing.T) {
	dir, _, _ := populated(t)
	edits := map[string]string{
		`"state":"PendingDeletion"`: `"state":"Enabled"`, `["generate","decrypt"]`: `["admin"]`,
		`"service":false`: `"service":true`, `"generation":`: `"generation":1`,
	}
	for _, name := range storedFiles(t, dir)[1:] {
		path := filepath.Join(dir, name)
		good := readFile(t, path)
		for from, to := range edits {
			if bad := bytes.Replace(good, []byte(from), []byte(to), 1); !bytes.Equal(bad, good) {
				writeFile(t, path, bad)
				wantDamage(t, from, use(t, dir), path)
			}
		}
		writeFile(t, path, good)
	}
}

func TestDamagedKeyDoesNotStopOthers(t *testing.T) {
	dir, w, dk := populated(t)
	k := openAt(t, dir)
	info, err := k.DescribeKey(t.Context(), "alias/a")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, recordFile(info.KeyID))
	writeFile(t, path, nil)
	wantOpens(t, k, w, dk)
	generate(t, k, "")
	list, err := k.ListKeys(t.Context())
	wantDamage(t, "ListKeys", err, path)
	if len(list) != 4 {
		t.Errorf("%d keys listed beside the damaged one, want 4", len(list))
	}
	_, err = k.DescribeKey(t.Context(), "alias/a")
	wantDamage(t, "DescribeKey", err, path)
}

func TestSwappedAndForeignRecords(t *testing.T) {
	dir, _, _ := populated(t)
	other, _, _ := populated(t)
	names, foreign := storedFiles(t, dir), storedFiles(t, other)
	a, b := filepath.Join(dir, names[1]), filepath.Join(dir, names[2])
	dataA := readFile(t, a)
	writeFile(t, a, readFile(t, b))
	wantDamage(t, "another key's record", use(t, dir), a)
	writeFile(t, a, readFile(t, filepath.Join(other, foreign[1])))
	wantDamage(t, "another KMS's record", use(t, dir), a)
	writeFile(t, a, dataA)
	stray := filepath.Join(dir, foreign[1])
	writeFile(t, stray, readFile(t, filepath.Join(other, foreign[1])))
	wantDamage(t, "record that was never here", use(t, dir), stray)
}

// TestFilesPutBackAreDetected puts back, after each kind of change, every file that
// it altered, one at a time.
func TestFilesPutBackAreDetected(t *testing.T) {
	base, _, _ := populated(t)
	for name, change := range changes {
		dir := copyFolder(t, base)
		k := openAt(t, dir)
		if err := change(t.Context(), k); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		k.Close()
		put := 0
		for _, file := range storedFiles(t, base) {
			path := filepath.Join(dir, file)
			old, now := readFile(t, filepath.Join(base, file)), readFile(t, path)
			if bytes.Equal(old, now) {
				continue
			}
			put++
			writeFile(t, path, old)
			wantDamage(t, name+": "+file+" put back", use(t, dir), file)
			writeFile(t, path, now)
		}
		if put == 0 {
			t.Errorf("%s altered no file", name)
		}
	}
}

// TestIndexOfAnInterruptedChangePutBack puts back an index that was caught in the
// middle of a change, with the record that it was about to write.
func TestIndexOfAnInterruptedChangePutBack(t *testing.T) {
	dir, _, _ := populated(t)
	path := filepath.Join(dir, indexFile)
	var caught []byte
	k := openAt(t, dir)
	k.store.step = func(operation, name string) error {
		if operation == "rename" && name == indexFile && caught == nil {
			caught = readFile(t, path)
		}
		return nil
	}
	for _, f := range []func() error{
		func() error { return k.EnableKey(t.Context(), "alias/a") },
		func() error { return k.DisableKey(t.Context(), "alias/a") },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	k.Close()
	if !bytes.Contains(caught, []byte(`"pending"`)) {
		t.Fatal("the index was not caught in a change")
	}
	writeFile(t, path, caught)
	wantDamage(t, "index put back", use(t, dir), path)
}

func TestMissingRootKeyIsNeverReplaced(t *testing.T) {
	dir, _, _ := populated(t)
	path := filepath.Join(dir, "root.key")
	root := readFile(t, path)
	names := storedFiles(t, dir)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for _, left := range [][]string{names, names[1:]} { // with index.json, then without
		for _, name := range names {
			if name == "index.json" && !slices.Contains(left, name) {
				os.Remove(filepath.Join(dir, name))
			}
		}
		wantDamage(t, "missing root key", use(t, dir), path)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("a root key was made: %v", err)
		}
	}
	writeFile(t, path, root)
	wantDamage(t, "missing index", use(t, dir), filepath.Join(dir, "index.json"))
}

func TestBadRootKeys(t *testing.T) {
	dir, _, _ := populated(t)
	path := filepath.Join(dir, "root.key")
	root := readFile(t, path)
	other := bytes.Clone(root)
	other[31] ^= 1
	writeFile(t, path, other)
	wantDamage(t, "another root key", use(t, dir), path)
	for _, data := range [][]byte{nil, root[:31], append(bytes.Clone(root), '\n')} {
		writeFile(t, path, data)
		wantDamage(t, "root key of wrong size", use(t, dir), path)
	}
	writeFile(t, path, root)
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		err := use(t, dir)
		var e *keymgr.Error
		if !errors.Is(err, fs.ErrPermission) || !errors.As(err, &e) || !strings.Contains(err.Error(), path) || !strings.Contains(e.Hint, "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := use(t, dir); err != nil {
		t.Errorf("mode 400: %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := use(t, dir); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("open folder: %v", err)
	}
}

// TestLostIndexMakesNoSecondServiceKey puts back the index from before there was a
// service key.
func TestLostIndexMakesNoSecondServiceKey(t *testing.T) {
	k := newKMS(t)
	path := filepath.Join(k.store.dir, indexFile)
	old := readFile(t, path)
	_, w := generate(t, k, "")
	writeFile(t, path, old)
	_, err := k.As(DiskService).GenerateDataKeyWithoutPlaintext(t.Context(), "", disk("1"))
	wantDamage(t, "GenerateDataKey", err, path)
	_, err = k.DescribeKey(t.Context(), ServiceAlias)
	wantDamage(t, "DescribeKey", err, path)
	_, err = k.As(DiskService).Decrypt(t.Context(), w, disk("1"))
	wantDamage(t, "Decrypt", err, path)
}

func TestMissingRootKeyOfAnEmptyKMS(t *testing.T) {
	dir := newFolder(t)
	openAt(t, dir).Close()
	path := filepath.Join(dir, "root.key")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantDamage(t, "missing root key", use(t, dir), path)
}
