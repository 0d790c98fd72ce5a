package local

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// earlierBackup is one of the format that earlier versions wrote, with a data key that it
// opens.
func earlierBackup(t *testing.T) (data []byte, w keymgr.WrappedKey, dk *secret.Buffer) {
	t.Helper()
	at := filepath.Join("testdata", "backup1")
	blob, plain := readFile(t, at+".wrapped"), readFile(t, at+".datakey")
	dk, err := secret.New(len(plain))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dk.Destroy)
	copy(dk.Bytes(), plain)
	id := "key-" + hex.EncodeToString(blob[blobID:blobID+16])
	return readFile(t, at), keymgr.WrappedKey{URI: keymgr.SchemeLocal + ":" + id, Version: "1", Blob: blob}, dk
}

func TestEarlierBackupIsRestored(t *testing.T) {
	data, w, dk := earlierBackup(t)
	dir := newFolder(t)
	if n, err := Restore(t.Context(), dir, Options{Now: atNoon}, passphraseOf(t, "correct horse"), bytes.NewReader(data)); err != nil || n != 4 {
		t.Fatalf("Restore: %d keys, %v", n, err)
	}
	k := openAt(t, dir)
	wantOpens(t, k, w, dk)
	if n, err := k.VerifyAudit(t.Context()); err != nil || n <= maxTail {
		t.Errorf("%d records, %v", n, err)
	}
}

// TestAlteredEarlierBackupIsRefused, one that says to be of the newer format too.
func TestAlteredEarlierBackupIsRefused(t *testing.T) {
	data, _, _ := earlierBackup(t)
	bad := [][]byte{data[:backupSealed], data[:backupSealed+sealOverhead-1], data[:len(data)-1]}
	for _, i := range []int{0, len(backupMagic), backupSalt, backupRoot, backupSealed, len(data) / 2, len(data) - 1} {
		flipped := bytes.Clone(data)
		flipped[i] ^= formatWhole ^ formatStream
		bad = append(bad, flipped)
	}
	for i, data := range bad {
		dir := newFolder(t)
		_, err := Restore(t.Context(), dir, Options{Now: atNoon}, passphraseOf(t, "correct horse"), bytes.NewReader(data))
		wantError(t, fmt.Sprint("backup ", i), err, keymgr.ErrCorrupt, CodeBackup)
		wantNothing(t, dir)
	}
}

// wantNothing checks that neither a folder is there nor anything beside it.
func wantNothing(t *testing.T, dir string) {
	t.Helper()
	if left, _ := filepath.Glob(dir + "*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestBackupInOtherOrderIsRefused: chunks that are whole, but not in their place.
func TestBackupInOtherOrderIsRefused(t *testing.T) {
	k := newKMS(t)
	newKey(t, k)
	growLog(t, k, 4*chunkSize)
	data, other := backupOf(t, k, "correct horse"), backupOf(t, k, "correct horse")
	const sealed = chunkSize + sealOverhead
	opening, chunks := data[:backupSealed], slices.Collect(slices.Chunk(data[backupSealed:], sealed))
	foreign := slices.Collect(slices.Chunk(other[backupSealed:], sealed))
	last := len(chunks) - 1
	for what, order := range map[string][][]byte{
		"cut behind a chunk": chunks[:last],
		"cut to nothing":     nil,
		"swapped":            slices.Concat(chunks[:1], chunks[2:3], chunks[1:2], chunks[3:]),
		"left out":           slices.Concat(chunks[:1], chunks[2:]),
		"doubled":            slices.Concat(chunks[:2], chunks[1:]),
		"added to":           slices.Concat(chunks, [][]byte{{0}}),
		"ended twice":        slices.Concat(chunks, chunks[last:]),
		"of another backup":  slices.Concat(chunks[:1], foreign[1:2], chunks[2:]),
	} {
		dir := newFolder(t)
		bad := slices.Concat(opening, bytes.Join(order, nil))
		_, err := Restore(t.Context(), dir, Options{Now: atNoon}, passphraseOf(t, "correct horse"), bytes.NewReader(bad))
		wantError(t, what, err, keymgr.ErrCorrupt, CodeBackup)
		wantNothing(t, dir)
	}
}

// entry is a file as it stands in a backup, whatever its size is said to be.
func entry(name string, size uint64, content string) string {
	return string(binary.BigEndian.AppendUint64(append([]byte{byte(len(name))}, name...), size)) + content
}

// TestHostileContentIsRefused: a backup of somebody who knows its passphrase.
func TestHostileContentIsRefused(t *testing.T) {
	for what, content := range map[string]string{
		"nothing":             "",
		"no name":             entry("", 1, "x"),
		"name that is cut":    "\x10ind",
		"size that is cut":    entry(indexFile, 1, "")[:len(indexFile)+4],
		"negative size":       entry(auditFile, 1<<63, "x"),
		"endless log":         entry(auditFile, 1<<62, "x"),
		"index that is long":  entry(indexFile, maxFile+1, "x"),
		"record that is long": entry(recordFile(newID()), maxFile+1, "x"),
		"a file twice":        entry(indexFile, 1, "x") + entry(indexFile, 1, "y"),
		"root key":            entry(rootFile, keySize, string(make([]byte, keySize))),
		"way out":             entry("../"+indexFile, 1, "x"),
		"way out of keys":     entry("keys/../../x.json", 1, "x"),
		"temporary file":      entry(indexFile+temporary, 1, "x"),
	} {
		dir := newFolder(t)
		_, err := Restore(t.Context(), dir, Options{Now: atNoon}, passphraseOf(t, "correct horse"), sealedAs(t, content))
		if !errors.Is(err, keymgr.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
		wantNothing(t, dir)
	}
}

// sealedAs is a backup with a content of one's own.
func sealedAs(t *testing.T, content string) io.Reader {
	t.Helper()
	header := backupHeader(usualStretching, make([]byte, backupRoot-backupSalt))
	key, err := usualStretching.stretch(passphraseOf(t, "correct horse"), header[backupSalt:])
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	root, err := seal(key, make([]byte, keySize), header)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := newAEAD(key)
	if err != nil {
		t.Fatal(err)
	}
	opening := append(header, root...)
	data := bytes.NewBuffer(bytes.Clone(opening))
	chunks := newChunkWriter(data, aead, opening)
	if _, err := chunks.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := chunks.finish(); err != nil {
		t.Fatal(err)
	}
	return data
}

// TestChunksOfEveryLength: where a stream ends, and how it is written, does not matter.
func TestChunksOfEveryLength(t *testing.T) {
	key, err := secret.Random(keySize)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	aead, err := newAEAD(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize} {
		for _, step := range []int{1000, chunkSize, 3 * chunkSize} {
			plain := bytes.Repeat([]byte("sealblk"), size/7+1)[:size]
			var sealed bytes.Buffer
			w := newChunkWriter(&sealed, aead, []byte("opening"))
			for p := range slices.Chunk(plain, step) {
				if n, err := w.Write(p); n != len(p) || err != nil {
					t.Fatal(n, err)
				}
			}
			if err := w.finish(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(newChunkReader(&sealed, aead, []byte("opening")))
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes by %d: %d bytes, %v", size, step, len(got), err)
			}
		}
	}
}

// TestBackupThatCannotBeRead: a bad disk is not a bad backup.
func TestBackupThatCannotBeRead(t *testing.T) {
	k := newKMS(t)
	newKey(t, k)
	data := backupOf(t, k, "correct horse")
	for _, n := range []int{0, 10, backupSealed, len(data) - 1} {
		dir := newFolder(t)
		r := io.MultiReader(bytes.NewReader(data[:n]), failingReader{})
		_, err := Restore(t.Context(), dir, Options{Now: atNoon}, passphraseOf(t, "correct horse"), r)
		if !errors.Is(err, os.ErrClosed) || errors.Is(err, keymgr.ErrCorrupt) {
			t.Errorf("after %d bytes: %v", n, err)
		}
		wantNothing(t, dir)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, os.ErrClosed }

// FuzzBackupContent: what is accepted is written the same way.
func FuzzBackupContent(f *testing.F) {
	f.Add([]byte(entry(indexFile, 2, "{}") + entry(auditFile, 0, "")))
	f.Add([]byte(entry("x", 1<<62, "")))
	f.Fuzz(func(t *testing.T, data []byte) {
		var again bytes.Buffer
		err := eachFile(bytes.NewReader(data), func(name string, size int64, content io.Reader) error {
			return writeFileTo(&again, name, size, content)
		})
		if err == nil && !bytes.Equal(again.Bytes(), data) {
			t.Fatalf("%x became %x", data, again.Bytes())
		}
	})
}
