package local

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

func init() { usualStretching = stretching{passes: 1, memory: 64, threads: 1} } // tests guess nothing

func passphraseOf(t *testing.T, text string) *secret.Buffer {
	t.Helper()
	b, err := secret.New(len(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Destroy)
	copy(b.Bytes(), text)
	return b
}

func backupOf(t *testing.T, k *KMS, passphrase string) []byte {
	t.Helper()
	var data bytes.Buffer
	err := k.Backup(t.Context(), passphraseOf(t, passphrase), func(write func(io.Writer) error) error { return write(&data) })
	if err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

func TestRestoreElsewhere(t *testing.T) {
	base, w, dk := populated(t)
	k := openAt(t, base)
	data := backupOf(t, k, "correct horse")
	root := readFile(t, filepath.Join(base, rootFile))
	if bytes.Contains(data, root) || bytes.Contains(data, []byte("alias/a")) {
		t.Error("the backup shows what it holds")
	}
	want := view(t, k)
	dir := newFolder(t)
	n, err := Restore(t.Context(), dir, Options{Now: atNoon}, passphraseOf(t, "correct horse"), bytes.NewReader(data))
	if err != nil || n != 4 {
		t.Fatalf("Restore: %d keys, %v", n, err)
	}
	restored := openAt(t, dir)
	wantOpens(t, restored, w, dk)
	if got := view(t, restored); got != want {
		t.Errorf("restored\n%s\nwant\n%s", got, want)
	}
	if _, err := restored.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
	if s, err := restored.BackupStatus(t.Context()); err != nil || s.Needed() {
		t.Errorf("a restored KMS has its backup: %+v, %v", s, err)
	}
	_, err = Restore(t.Context(), dir, Options{Now: atNoon}, passphraseOf(t, "correct horse"), bytes.NewReader(data))
	wantError(t, "over keys", err, keymgr.ErrState, CodeNotEmpty)
	wantOpens(t, openAt(t, dir), w, dk)
	if left, _ := filepath.Glob(dir + "?*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRestoreOverAKMSWithoutKeys(t *testing.T) {
	base, w, dk := populated(t)
	data := backupOf(t, openAt(t, base), "correct horse")
	empty := newKMS(t)
	empty.Close()
	if _, err := Restore(t.Context(), empty.store.dir, Options{Now: atNoon}, passphraseOf(t, "correct horse"), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	wantOpens(t, openAt(t, empty.store.dir), w, dk)
	if left, _ := filepath.Glob(empty.store.dir + "?*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBadBackupsAreRefused(t *testing.T) {
	k := newKMS(t)
	newKey(t, k)
	data := backupOf(t, k, "correct horse")
	dir := newFolder(t)
	refused := func(what, passphrase string, data []byte) {
		t.Helper()
		_, err := Restore(t.Context(), dir, Options{Now: atNoon}, passphraseOf(t, passphrase), bytes.NewReader(data))
		wantError(t, what, err, keymgr.ErrCorrupt, CodeBackup)
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: something was restored", what)
		}
	}
	refused("wrong passphrase", "correct horsf", data)
	refused("empty", "correct horse", nil)
	for i := 0; i < len(data); i += 1 + len(data)/400 {
		if i >= backupParams && i < backupSalt {
			continue // other parameters only cost time: see below
		}
		bad := bytes.Clone(data)
		bad[i] ^= 0x10
		refused("bit flipped", "correct horse", bad)
	}
	for _, n := range []int{1, backupSealed, backupSealed + 28, len(data) - 1} {
		refused("cut", "correct horse", data[:n])
	}
	for i := backupParams; i < backupSalt; i += 4 {
		bad := bytes.Clone(data)
		bad[i] = 0xff
		refused("unreasonable", "correct horse", bad)
	}
	if err := k.Backup(t.Context(), passphraseOf(t, "short"), nil); !errors.Is(err, keymgr.ErrInvalid) {
		t.Errorf("short passphrase: %v", err)
	}
	if err := k.As(DiskService).Backup(t.Context(), passphraseOf(t, "correct horse"), nil); !errors.Is(err, keymgr.ErrAccessDenied) {
		t.Errorf("the disk service makes a backup: %v", err)
	}
}

func TestDamagedKMSIsNotBackedUp(t *testing.T) {
	base, _, _ := populated(t)
	writeFile(t, filepath.Join(base, storedFiles(t, base)[1]), nil)
	k := openAt(t, base)
	err := k.Backup(t.Context(), passphraseOf(t, "correct horse"), func(func(io.Writer) error) error { t.Error("a backup was made"); return nil })
	if !errors.Is(err, keymgr.ErrCorrupt) {
		t.Errorf("Backup: %v", err)
	}
}

func TestBackupStatus(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	check := func(what string, needed bool, unsaved uint64) {
		t.Helper()
		if s, err := k.BackupStatus(ctx); err != nil || s.Needed() != needed || s.Unsaved != unsaved {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
	}
	check("no key", false, 0)
	id := newKey(t, k)
	check("a key", true, 1)
	failed := k.Backup(ctx, passphraseOf(t, "correct horse"), func(func(io.Writer) error) error { return errDisk })
	if !errors.Is(failed, errDisk) {
		t.Error(failed)
	}
	check("backup that failed", true, 1)
	backupOf(t, k, "correct horse")
	check("backup", false, 0)
	generate(t, k, id)
	check("data keys are in their disks", false, 0)
	if _, err := k.RotateKey(ctx, id); err != nil {
		t.Fatal(err)
	}
	check("rotation", true, 1)
}

// TestFaultAtEveryWriteOfARestore: afterwards there is all or nothing, and trying again
// works.
func TestFaultAtEveryWriteOfARestore(t *testing.T) {
	base, w, dk := populated(t)
	data := backupOf(t, openAt(t, base), "correct horse")
	pass := passphraseOf(t, "correct horse")
	for _, fault := range []error{errCrash, errDisk} {
		for n, hit := 1, true; hit; n++ {
			dir, armed := newFolder(t), true
			hit = false
			func() {
				defer func() {
					if r := recover(); r != nil && r != any(errCrash) {
						panic(r)
					}
				}()
				_, err := restore(t.Context(), files{dir: dir, step: faultAt(n, fault, &armed, &hit)}, Options{Now: atNoon}, pass, bytes.NewReader(data))
				if hit && !errors.Is(err, errDisk) {
					t.Errorf("fault %d: %v", n, err)
				}
			}()
			if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
				if _, err := Restore(t.Context(), dir, Options{Now: atNoon}, pass, bytes.NewReader(data)); err != nil {
					t.Errorf("again after fault %d: %v", n, err)
				}
			}
			wantOpens(t, openAt(t, dir), w, dk)
		}
	}
}

func FuzzParseBackup(f *testing.F) {
	f.Add(append(backupHeader(usualStretching, make([]byte, 16)), make([]byte, backupSealed-backupRoot)...))
	f.Add([]byte(backupMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		format, s, salt, err := parseOpening(data)
		if err == nil && (format != formatWhole && format != formatStream || !s.allowed() || len(salt) != 16) {
			t.Fatalf("accepted %+v", s)
		}
	})
}

func atNoon() time.Time { return noon }
