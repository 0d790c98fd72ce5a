package local

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"sealblk/keymgr"
)

// during calls f once, when a restore unpacks its first file.
func during(f func()) func(string, string) error {
	var once sync.Once
	return func(operation, _ string) error {
		if operation == "create" {
			once.Do(f)
		}
		return nil
	}
}

// TestKeyMadeDuringARestoreIsKept: who comes while a KMS is restored waits, and makes
// his key in the restored one.
func TestKeyMadeDuringARestoreIsKept(t *testing.T) {
	base, w, dk := populated(t)
	data := backupOf(t, openAt(t, base), "correct horse")
	for what, dir := range map[string]string{
		"no folder":          newFolder(t),
		"a KMS without keys": newKMS(t).store.dir,
	} {
		t.Run(what, func(t *testing.T) {
			var made string
			var failed error
			done := make(chan struct{})
			comes := func() {
				go func() {
					defer close(done)
					made, failed = useServiceKey(dir)
				}()
				awaitWaiter(t, dir, done)
			}
			_, err := restore(t.Context(), files{dir: dir, step: during(comes)}, Options{Now: atNoon}, passphraseOf(t, "correct horse"), bytes.NewReader(data))
			<-done
			if err != nil || failed != nil {
				t.Errorf("restore: %v, use: %v", err, failed)
			}
			k := openAt(t, dir)
			wantOpens(t, k, w, dk)
			if _, err := k.DescribeKey(t.Context(), made[len(keymgr.SchemeLocal)+1:]); err != nil {
				t.Errorf("the key that was made meanwhile: %v", err)
			}
			if _, err := k.VerifyAudit(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRestoreSparesAForeignKMS: one that appears without asking for the lock, a folder
// that is copied there, is neither replaced nor removed.
func TestRestoreSparesAForeignKMS(t *testing.T) {
	base, _, _ := populated(t)
	data := backupOf(t, openAt(t, base), "correct horse")
	other, w, dk := populated(t)
	dir := newFolder(t)
	copied := func() {
		if out, err := exec.Command("cp", "-a", other+"/.", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	_, err := restore(t.Context(), files{dir: dir, step: during(copied)}, Options{Now: atNoon}, passphraseOf(t, "correct horse"), bytes.NewReader(data))
	wantError(t, "restore over it", err, keymgr.ErrState, CodeNotEmpty)
	wantOpens(t, openAt(t, dir), w, dk)
	if left, _ := filepath.Glob(dir + "?*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestWaiterDoesNotLockAReplacedFolder: it gets the lock of the folder that is there
// when its turn comes.
func TestWaiterDoesNotLockAReplacedFolder(t *testing.T) {
	k, other := newKMS(t), newKMS(t)
	dir := k.store.dir
	held, err := k.store.lock()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var got *os.File
	var failed error
	go func() {
		defer close(done)
		got, failed = k.store.lock()
	}()
	awaitWaiter(t, dir, done)
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Rename(other.store.dir, dir)); err != nil {
		t.Fatal(err)
	}
	held.Close()
	<-done
	if failed != nil {
		t.Fatal(failed)
	}
	defer got.Close()
	if err := k.store.checkInPlace(got); err != nil {
		t.Error(err)
	}
}
