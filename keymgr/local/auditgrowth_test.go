package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sealblk/keymgr"
)

// growLog adds records of refused calls to the log until it is longer than size. They
// have the longest context that a caller can make up.
func growLog(t *testing.T, k *KMS, size int64) {
	t.Helper()
	s, err := k.store.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.end()
	f, err := os.OpenFile(s.path(auditFile), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	long := keymgr.Context{"a": strings.Repeat("<", keymgr.MaxContextBytes-16)}
	head := &s.index.Audit
	for head.Durable <= size {
		if err := head.add(s.auditKey, Entry{Time: noon, Operation: "Decrypt", Context: long, Result: CodeAccessDenied}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(head.tail(), head.Durable); err != nil {
			t.Fatal(err)
		}
		head.Durable, head.Tail = head.Durable+int64(len(head.tail())), nil
	}
	if err := s.writeDocument(indexFile, indexFormat, s.index); err != nil {
		t.Fatal(err)
	}
}

// pieces counts what is written to and read from a backup at a time.
type pieces struct {
	bytes.Buffer
	largest int
}

func (p *pieces) Write(b []byte) (int, error) {
	p.largest = max(p.largest, len(b))
	return p.Buffer.Write(b)
}

func (p *pieces) Read(b []byte) (int, error) {
	p.largest = max(p.largest, len(b))
	return p.Buffer.Read(b)
}

// longer is a size that a log reaches in a test: more than any other file may have, but
// where tests shall be short.
func longer() int64 {
	if testing.Short() {
		return 20 * chunkSize
	}
	return maxFile
}

// TestLogOfAnyLengthIsBackedUpAndRestored: callers make the log as long as they like, and
// keep nobody from a backup by it. All of the log comes back.
func TestLogOfAnyLengthIsBackedUpAndRestored(t *testing.T) {
	base, w, dk := populated(t)
	k := openAt(t, base)
	growLog(t, k, longer())
	k.ListKeys(t.Context()) // a record that is not synced
	log := readFile(t, filepath.Join(base, auditFile))
	records := k.count(t)
	var data pieces
	err := k.Backup(t.Context(), passphraseOf(t, "correct horse"), func(write func(io.Writer) error) error { return write(&data) })
	if err != nil {
		t.Fatal(err)
	}
	dir := newFolder(t)
	if n, err := Restore(t.Context(), dir, Options{Now: atNoon}, passphraseOf(t, "correct horse"), &data); err != nil || n != 4 {
		t.Fatalf("Restore: %d keys, %v", n, err)
	}
	if data.largest > chunkSize+sealOverhead {
		t.Errorf("%d bytes of the backup were in memory at a time", data.largest)
	}
	if !bytes.HasPrefix(readFile(t, filepath.Join(dir, auditFile)), log) {
		t.Error("another log was restored")
	}
	restored := openAt(t, dir)
	if n, err := restored.VerifyAudit(t.Context()); err != nil || n != records+1 { // and the restore
		t.Errorf("restored %d records, %v, want %d", n, err, records)
	}
	wantOpens(t, restored, w, dk)
}

// TestKMSIsUsedDuringABackup: a long log does not keep disks from their keys while it is
// written. What is made then counts as not saved, and is not in the backup.
func TestKMSIsUsedDuringABackup(t *testing.T) {
	base, w, dk := populated(t)
	k := openAt(t, base)
	before := view(t, k)
	records := k.count(t)
	var data bytes.Buffer
	err := k.Backup(t.Context(), passphraseOf(t, "correct horse"), func(write func(io.Writer) error) error {
		wantOpens(t, k, w, dk)
		newKey(t, k)
		for range 2 * maxTail {
			k.ListKeys(t.Context())
		}
		return write(&data)
	})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := k.BackupStatus(t.Context()); err != nil || s.Unsaved != 1 {
		t.Errorf("after the backup: %+v, %v", s, err)
	}
	if _, err := k.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
	dir := newFolder(t)
	if _, err := Restore(t.Context(), dir, Options{Now: atNoon}, passphraseOf(t, "correct horse"), &data); err != nil {
		t.Fatal(err)
	}
	restored := openAt(t, dir)
	if n, err := restored.VerifyAudit(t.Context()); err != nil || n != records+1 {
		t.Errorf("restored %d records, %v, want %d and the restore", n, err, records)
	}
	if got := view(t, restored); got != before {
		t.Errorf("restored\n%s\nwant\n%s", got, before)
	}
}

// fullAfter is a file on a disk that has room for n bytes.
type fullAfter struct{ n int }

func (f *fullAfter) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

// TestBackupThatFailsIsRecorded: wherever it fails, and who gives it up does not go
// unseen either.
func TestBackupThatFailsIsRecorded(t *testing.T) {
	k := newKMS(t)
	newKey(t, k)
	growLog(t, k, 3*chunkSize)
	pass := passphraseOf(t, "correct horse")
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
		entries := auditOf(t, k)
		if e := entries[len(entries)-1]; e.Operation != opBackup || e.Result != resultFailed {
			t.Errorf("%s: recorded %s", what, told(e))
		}
		if s, err := k.BackupStatus(t.Context()); err != nil || !s.Needed() {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
	}
	for _, room := range []int{0, backupSealed, backupSealed + 2*chunkSize, backupSealed + 3*chunkSize} {
		err := k.Backup(t.Context(), pass, func(write func(io.Writer) error) error { return write(&fullAfter{room}) })
		check("disk full", err, errDisk)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := k.Backup(ctx, pass, func(write func(io.Writer) error) error { cancel(); return write(io.Discard) })
	check("given up", err, context.Canceled)
}

// TestLogThatIsCutDuringABackup: a backup that is not what it says is none.
func TestLogThatIsCutDuringABackup(t *testing.T) {
	k := newKMS(t)
	newKey(t, k)
	growLog(t, k, 3*chunkSize)
	err := k.Backup(t.Context(), passphraseOf(t, "correct horse"), func(write func(io.Writer) error) error {
		if err := os.Truncate(k.store.path(auditFile), chunkSize); err != nil {
			t.Error(err)
		}
		return write(io.Discard)
	})
	if err == nil || !strings.Contains(err.Error(), auditFile+" was cut") {
		t.Errorf("Backup: %v", err)
	}
}

// TestDamagedLogIsCheckedInLittleMemory: a log that was cut has a hole, as long as what
// is missing, in which no record ends.
func TestDamagedLogIsCheckedInLittleMemory(t *testing.T) {
	k := newKMS(t)
	newKey(t, k)
	growLog(t, k, longer())
	if err := os.Truncate(k.store.path(auditFile), 10); err != nil {
		t.Fatal(err)
	}
	k.ListKeys(t.Context())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := k.VerifyAudit(t.Context())
	runtime.ReadMemStats(&after)
	wantDamage(t, "cut log", err, "record 1 is longer than any")
	if used := after.TotalAlloc - before.TotalAlloc; used > 4*maxAuditLine {
		t.Errorf("%d bytes of memory were used", used)
	}
}
