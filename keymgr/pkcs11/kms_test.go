//go:build pkcs11

package pkcs11

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"sealblk/internal/credential"
	"sealblk/keymgr"
	"sealblk/keymgr/pkcs11/softhsm"
	"sealblk/keymgr/secret"
)

var ec = keymgr.Context{keymgr.ContextDisk: "disk-1"}

func configOf(k *softhsm.Token) Config {
	return Config{Module: k.Module, Token: k.Label, PINFile: k.PINFile, Timeout: time.Minute}
}

func openKMS(t *testing.T, c Config) *KMS {
	t.Helper()
	k, err := open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// newKMS is a KMS on a token with the key disks, version 01.
func newKMS(t *testing.T) (*softhsm.Token, *KMS) {
	t.Helper()
	token := softhsm.New(t)
	token.Key(t, "disks", []byte{1})
	return token, openKMS(t, configOf(token))
}

func generate(t *testing.T, k *KMS, key string) (*secret.Buffer, keymgr.WrappedKey) {
	t.Helper()
	dk, w, err := k.GenerateDataKey(t.Context(), key, ec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dk.Destroy)
	return dk, w
}

func wantOpens(t *testing.T, k *KMS, w keymgr.WrappedKey, dk *secret.Buffer) {
	t.Helper()
	got, err := k.Decrypt(t.Context(), w, ec)
	if err != nil {
		t.Errorf("Decrypt under %s version %s: %v", w.URI, w.Version, err)
		return
	}
	defer got.Destroy()
	if !got.Equal(dk) {
		t.Errorf("Decrypt under %s version %s: another data key", w.URI, w.Version)
	}
}

// wantError checks the meaning of an error, and that a user learns what to do.
func wantError(t *testing.T, what string, err, sentinel error) *keymgr.Error {
	t.Helper()
	var e *keymgr.Error
	if !errors.Is(err, sentinel) || !errors.As(err, &e) || e.Hint == "" || strings.Contains(err.Error()+e.Hint, "\n") {
		t.Errorf("%s: error %v, want %v with a hint", what, err, sentinel)
		return &keymgr.Error{}
	}
	return e
}

func TestDataKey(t *testing.T) {
	_, k := newKMS(t)
	dk, w := generate(t, k, "disks")
	if w.URI != "pkcs11:disks" || w.Version != "01" || bytes.Contains(w.Blob, dk.Bytes()) {
		t.Errorf("wrapped to %+v", w)
	}
	wantOpens(t, k, w, dk)
	again, other := generate(t, k, "disks")
	if again.Equal(dk) || bytes.Equal(other.Blob, w.Blob) {
		t.Error("two data keys are equal")
	}
	byID, err := k.GenerateDataKeyWithoutPlaintext(t.Context(), "id=01", ec)
	if err != nil || byID.URI != "pkcs11:id=01" {
		t.Fatalf("%+v, %v", byID, err)
	}
	got, err := k.Decrypt(t.Context(), byID, ec)
	if err != nil {
		t.Fatal(err)
	}
	got.Destroy()
	info, err := k.DescribeKey(t.Context(), "disks")
	if err != nil || info.State != keymgr.Enabled || info.PrimaryVersion != "01" || info.Versions != 1 || info.URI != "pkcs11:disks" {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestVersions(t *testing.T) {
	token, k := newKMS(t)
	dk, old := generate(t, k, "disks")
	// As numbers, and in spite of their order of making: 2 < 0100 < 0200.
	token.Key(t, "disks", []byte{2, 0})
	token.Key(t, "disks", []byte{1, 0})
	token.Key(t, "disks", []byte{2})
	fresh, w := generate(t, k, "disks")
	if w.Version != "0200" {
		t.Errorf("wrapped under version %s", w.Version)
	}
	wantOpens(t, k, old, dk)
	wantOpens(t, k, w, fresh)
	moved, err := k.ReEncrypt(t.Context(), old, ec, "disks")
	if err != nil || moved.Version != "0200" {
		t.Fatalf("%+v, %v", moved, err)
	}
	wantOpens(t, k, moved, dk)
	token.Key(t, "other", []byte{1, 1})
	moved, err = k.ReEncrypt(t.Context(), moved, ec, "other")
	if err != nil || moved.URI != "pkcs11:other" || moved.Version != "0101" {
		t.Fatalf("%+v, %v", moved, err)
	}
	wantOpens(t, k, moved, dk)
	if info, err := k.DescribeKey(t.Context(), "disks"); err != nil || info.Versions != 4 || info.PrimaryVersion != "0200" {
		t.Errorf("%+v, %v", info, err)
	}
	token.Key(t, "disks", []byte{0, 2})
	_, err = k.DescribeKey(t.Context(), "disks")
	wantError(t, "two versions with one number", err, keymgr.ErrInvalid)
}

func TestDates(t *testing.T) {
	token, k := newKMS(t)
	k.now = func() time.Time { return time.Date(2026, 3, 1, 23, 0, 0, 0, time.UTC) }
	dates := func(id byte, start, end string) {
		token.Key(t, "dated", []byte{id}, pkcs11.NewAttribute(pkcs11.CKA_START_DATE, []byte(start)), pkcs11.NewAttribute(pkcs11.CKA_END_DATE, []byte(end)),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false)) // SoftHSM 2.6 cannot read dates of private objects
	}
	dates(1, "20250101", "20260301")
	dates(2, "20260302", "20270301")
	dk, w := generate(t, k, "dated")
	if w.Version != "01" {
		t.Errorf("on its last day: version %s", w.Version)
	}
	k.now = func() time.Time { return time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC) }
	if _, w := generate(t, k, "dated"); w.Version != "02" {
		t.Errorf("the next day: version %s", w.Version)
	}
	k.now = func() time.Time { return time.Date(2027, 3, 2, 0, 0, 0, 0, time.UTC) }
	_, err := k.GenerateDataKeyWithoutPlaintext(t.Context(), "dated", ec)
	wantError(t, "after the last day", err, keymgr.ErrDisabled)
	if info, err := k.DescribeKey(t.Context(), "dated"); err != nil || info.State != keymgr.Disabled {
		t.Errorf("%+v, %v", info, err)
	}
	wantOpens(t, k, w, dk)
}

func TestDisabled(t *testing.T) {
	token, k := newKMS(t)
	dk, w := generate(t, k, "disks")
	token.Set(t, "disks", pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, false))
	_, err := k.GenerateDataKeyWithoutPlaintext(t.Context(), "disks", ec)
	wantError(t, "generate", err, keymgr.ErrDisabled)
	_, err = k.ReEncrypt(t.Context(), w, ec, "disks")
	wantError(t, "re-encrypt", err, keymgr.ErrDisabled)
	wantOpens(t, k, w, dk)
	state := func(what string, want keymgr.State) {
		t.Helper()
		if info, err := k.DescribeKey(t.Context(), "disks"); err != nil || info.State != want {
			t.Errorf("%s: %s, %v", what, info.State, err)
		}
	}
	state("may not encrypt", keymgr.Disabled)
	token.Set(t, "disks", pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false))
	state("may not decrypt", keymgr.Disabled)
	_, err = k.Decrypt(t.Context(), w, ec)
	wantError(t, "decrypt", err, keymgr.ErrDisabled)
	token.Set(t, "disks", pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true))
	wantOpens(t, k, w, dk)
	state("may do both", keymgr.Enabled)
	token.Destroy(t, "disks")
	_, err = k.Decrypt(t.Context(), w, ec)
	wantError(t, "destroyed", err, keymgr.ErrNotFound)
}

// TestWatchedVersion: what counts for a disk is that its own version decrypts.
func TestWatchedVersion(t *testing.T) {
	token, k := newKMS(t)
	_, w := generate(t, k, "disks")
	watch := func(what string, w keymgr.WrappedKey, want error) {
		t.Helper()
		err := keymgr.CheckUsable(t.Context(), k, strings.TrimPrefix(w.URI, "pkcs11:"), w.Version)
		if !errors.Is(err, want) || (err == nil) != (want == nil) || keymgr.IsLoss(err) != (want != nil) {
			t.Errorf("%s: the watch says %v", what, err)
		}
		if got, err := k.Decrypt(t.Context(), w, ec); !errors.Is(err, want) {
			t.Errorf("%s: decrypt says %v", what, err)
		} else {
			got.Destroy()
		}
	}
	watch("may do both", w, nil)
	token.Set(t, "disks", pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, false))
	watch("may not encrypt", w, nil)
	token.Set(t, "disks", pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false))
	token.Key(t, "disks", []byte{2})
	watch("may not decrypt, and a newer one may", w, keymgr.ErrDisabled)
	_, newer := generate(t, k, "disks")
	watch("the newer one", newer, nil)
	token.Destroy(t, "disks")
	token.Key(t, "disks", []byte{2})
	watch("destroyed, and the newer one is there", w, keymgr.ErrNotFound)

	token.Key(t, "dated", []byte{1}, pkcs11.NewAttribute(pkcs11.CKA_END_DATE, []byte("20270301")),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false)) // as in TestDates
	k.now = func() time.Time { return time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC) }
	_, dated := generate(t, k, "dated")
	k.now = func() time.Time { return time.Date(2027, 3, 2, 0, 0, 0, 0, time.UTC) }
	watch("its time is over", dated, nil)
}

// TestUnfitKeys: what can be read out of the token, or is no AES-256 key, is no CMK.
func TestUnfitKeys(t *testing.T) {
	token, k := newKMS(t)
	for what, a := range map[string]*pkcs11.Attribute{
		"extractable": pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true), "shown": pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
		"AES-128": pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 16), "without id": pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{}),
	} {
		token.Key(t, what, []byte{9}, a)
		_, err := k.GenerateDataKeyWithoutPlaintext(t.Context(), what, ec)
		if e := wantError(t, what, err, keymgr.ErrInvalid); e.Key != "pkcs11:"+what {
			t.Errorf("%s: names %q", what, e.Key)
		}
	}
	for _, key := range []string{"none", "id=77"} {
		_, err := k.GenerateDataKeyWithoutPlaintext(t.Context(), key, ec)
		wantError(t, key, err, keymgr.ErrNotFound)
	}
}

// TestUnfitBesideAVersion: an object that was made with a mistake keeps new data keys from
// being wrapped, and nothing that was wrapped before from being opened.
func TestUnfitBesideAVersion(t *testing.T) {
	token, k := newKMS(t)
	for what, object := range map[string]struct {
		id byte
		a  *pkcs11.Attribute
	}{
		"extractable":   {9, pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true)},
		"AES-128":       {9, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 16)},
		"without id":    {9, pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{})},
		"an id of both": {9, pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{7})},
		"as a number":   {9, pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{0, 7})},
	} {
		token.Key(t, what, []byte{1})
		dk, w := generate(t, k, what)
		token.Key(t, what, []byte{7})
		newer, other := generate(t, k, what)
		token.Key(t, what, []byte{object.id}, object.a)
		wantOpens(t, k, w, dk)
		if err := keymgr.CheckUsable(t.Context(), k, what, w.Version); err != nil {
			t.Errorf("%s: the watch of another version: %v", what, err)
		}
		_, err := k.GenerateDataKeyWithoutPlaintext(t.Context(), what, ec)
		wantError(t, what, err, keymgr.ErrInvalid)
		_, err = k.DescribeKey(t.Context(), what)
		wantError(t, what, err, keymgr.ErrInvalid)
		wantOpens(t, k, other, newer)
		if err := keymgr.CheckUsable(t.Context(), k, what, other.Version); err != nil {
			t.Errorf("%s: the watch of the version: %v", what, err)
		}
		bad := other
		bad.Blob = bytes.Clone(other.Blob)
		bad.Blob[len(bad.Blob)-1] ^= 1
		_, err = k.Decrypt(t.Context(), bad, ec)
		wantError(t, what+", damaged", err, keymgr.ErrCorrupt)
		token.Set(t, what, pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false))
		wantError(t, what+", disabled", keymgr.CheckUsable(t.Context(), k, what, other.Version), keymgr.ErrDisabled)
	}
}

// TestEveryBitOfABlob: each is detected, and none leads to a data key.
func TestEveryBitOfABlob(t *testing.T) {
	token, k := newKMS(t)
	token.Key(t, "disks", []byte{3}) // which is one bit from 1
	token.Key(t, "other", []byte{1, 1})
	dk, w := generate(t, k, "id=01")
	w.URI = "pkcs11:disks"
	wantOpens(t, k, w, dk)
	for i := range w.Blob {
		for bit := range 8 {
			bad := w
			bad.Blob = bytes.Clone(w.Blob)
			bad.Blob[i] ^= 1 << bit
			got, err := k.Decrypt(t.Context(), bad, ec)
			if !errors.Is(err, keymgr.ErrCorrupt) {
				got.Destroy()
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
	_, err := k.Decrypt(t.Context(), w, keymgr.Context{keymgr.ContextDisk: "disk-2"})
	wantError(t, "another disk", err, keymgr.ErrContextMismatch)
	_, err = k.ReEncrypt(t.Context(), w, nil, "disks")
	wantError(t, "re-encrypt for another disk", err, keymgr.ErrContextMismatch)
	moved := w
	moved.URI = "pkcs11:other"
	_, err = k.Decrypt(t.Context(), moved, ec)
	wantError(t, "another key", err, keymgr.ErrNotFound)
}

// TestDamageUnderAnOldVersion: a version that may only decrypt, as one before a rotation,
// is not disabled by a blob that was altered.
func TestDamageUnderAnOldVersion(t *testing.T) {
	token, k := newKMS(t)
	dk, w := generate(t, k, "disks")
	bad := w
	bad.Blob = bytes.Clone(w.Blob)
	bad.Blob[len(bad.Blob)-1] ^= 1
	token.Set(t, "disks", pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, false))
	for _, what := range []string{"alone", "with a newer one"} {
		_, err := k.Decrypt(t.Context(), bad, ec)
		wantError(t, what, err, keymgr.ErrCorrupt)
		if keymgr.IsLoss(err) {
			t.Errorf("%s: %v is a loss of the key", what, err)
		}
		wantOpens(t, k, w, dk)
		token.Key(t, "disks", []byte{9})
	}
}

// TestPIN: a wrong one is tried once, and neither it nor the right one is shown.
func TestPIN(t *testing.T) {
	token, _ := newKMS(t)
	c := configOf(token)
	c.PINFile = filepath.Join(token.Folder, "wrong")
	if err := os.WriteFile(c.PINFile, []byte("87654321\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := openKMS(t, c)
	for range 20 { // SoftHSM does not lock a token; others do after three
		_, err := k.DescribeKey(t.Context(), "disks")
		if e := wantError(t, "wrong PIN", err, keymgr.ErrAccessDenied); e.Code != "CKR_PIN_INCORRECT" || strings.Contains(err.Error(), "8765") {
			t.Fatalf("%v", err)
		}
	}
	if err := os.Chmod(c.PINFile, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := openKMS(t, c).DescribeKey(t.Context(), "disks")
	if !errors.Is(err, credential.ErrExposed) || strings.Contains(err.Error(), "8765") {
		t.Errorf("PIN that others read: %v", err)
	}
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if err := os.WriteFile(filepath.Join(dir, "hsm-pin"), []byte("1234"), 0o400); err != nil {
		t.Fatal(err)
	}
	c.PINFile = "hsm-pin"
	k = openKMS(t, c)
	if _, err := k.DescribeKey(t.Context(), "disks"); err != nil {
		t.Errorf("PIN from a credential: %v", err)
	}
	k.Close() // and with it the login, which is the process's
	c.PINFile = ""
	_, err = openKMS(t, c).DescribeKey(t.Context(), "disks")
	wantError(t, "no PIN", err, keymgr.ErrUnreachable)
}

func TestNoToken(t *testing.T) {
	token, _ := newKMS(t)
	c := configOf(token)
	c.Token = "another"
	_, err := openKMS(t, c).DescribeKey(t.Context(), "disks")
	wantError(t, "no token", err, keymgr.ErrUnreachable)
	for what, path := range map[string]string{"missing": "/nowhere/lib.so", "not a library": token.PINFile, "no module": "/lib/x86_64-linux-gnu/libc.so.6"} {
		c.Module = path
		if _, err := Open(c); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
	slot, err := token.Slot()
	if err != nil {
		t.Fatal(err)
	}
	c = configOf(token)
	c.Token, c.Slot = "", &slot
	if _, err := openKMS(t, c).DescribeKey(t.Context(), "disks"); err != nil {
		t.Errorf("by slot: %v", err)
	}
}

// TestTokenForgets: closed sessions are opened anew, without the caller's notice.
func TestTokenForgets(t *testing.T) {
	token, k := newKMS(t)
	dk, w := generate(t, k, "disks")
	for range 3 {
		token.Forget(t)
		wantOpens(t, k, w, dk)
		token.Forget(t)
		generate(t, k, "disks")
	}
}

// TestTokenIsTakenOut: meanwhile it is unreachable, and afterwards all is as before.
func TestTokenIsTakenOut(t *testing.T) {
	token, k := newKMS(t)
	dk, w := generate(t, k, "disks")
	back := token.Remove(t)
	for range 2 {
		_, err := k.Decrypt(t.Context(), w, ec)
		wantError(t, "taken out", err, keymgr.ErrUnreachable)
	}
	back()
	wantOpens(t, k, w, dk)
	if _, w := generate(t, k, "disks"); w.Version != "01" {
		t.Errorf("version %s", w.Version)
	}
}

// TestManyCalls has more callers than sessions, while the token forgets them.
func TestManyCalls(t *testing.T) {
	token, _ := newKMS(t)
	c := configOf(token)
	c.Sessions = 2
	k := openKMS(t, c)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ec := keymgr.Context{keymgr.ContextDisk: fmt.Sprint(i)}
			for range 5 {
				dk, w, err := k.GenerateDataKey(t.Context(), "disks", ec)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := k.Decrypt(t.Context(), w, ec)
				if err != nil || !got.Equal(dk) {
					t.Errorf("Decrypt: %v", err)
				}
				got.Destroy()
				dk.Destroy()
			}
		})
	}
	wg.Wait()
	k.token.mu.Lock()
	defer k.token.mu.Unlock()
	if n := len(k.token.idle); n < 1 || n > 2 {
		t.Errorf("%d sessions are open", n)
	}
}

// TestCallsEnd: a module that does not answer holds nobody for longer than the caller
// wants or the configuration says.
func TestCallsEnd(t *testing.T) {
	token, _ := newKMS(t)
	c := configOf(token)
	c.Timeout = 50 * time.Millisecond
	k := openKMS(t, c)
	hang, hanging := make(chan struct{}), make(chan struct{})
	late := make(chan *secret.Buffer, 1)
	slow := func(session) (*secret.Buffer, error) {
		close(hanging)
		<-hang
		return secret.Random(32)
	}
	_, err := call(t.Context(), k.token, job[*secret.Buffer]{key: "disks", what: "wait", run: slow, discard: func(b *secret.Buffer) { late <- b }})
	wantError(t, "time-out", err, keymgr.ErrUnreachable)
	<-hanging
	close(hang)
	(<-late).Destroy()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.DescribeKey(ctx, "disks"); !errors.Is(err, context.Canceled) || errors.Is(err, keymgr.ErrUnreachable) {
		t.Errorf("cancelled: %v", err)
	}
	k.Close()
	k.Close()
	if _, err := k.DescribeKey(t.Context(), "disks"); !errors.Is(err, errClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestTwoKMSsInOneProcess share a module, and the end of one is not the other's.
func TestTwoKMSsInOneProcess(t *testing.T) {
	token, k := newKMS(t)
	other := openKMS(t, configOf(token))
	dk, w := generate(t, k, "disks")
	wantOpens(t, other, w, dk)
	k.Close()
	wantOpens(t, other, w, dk)
}

func TestAnswersOfAToken(t *testing.T) {
	for code, want := range map[pkcs11.Error]error{
		pkcs11.CKR_PIN_LOCKED: keymgr.ErrAccessDenied, pkcs11.CKR_PIN_EXPIRED: keymgr.ErrAccessDenied,
		pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED: keymgr.ErrDisabled, pkcs11.CKR_MECHANISM_INVALID: keymgr.ErrInvalid,
		pkcs11.CKR_SESSION_COUNT: keymgr.ErrThrottled, pkcs11.CKR_DEVICE_REMOVED: keymgr.ErrUnreachable,
		pkcs11.CKR_GENERAL_ERROR: keymgr.ErrUnreachable, pkcs11.CKR_VENDOR_DEFINED + 7: keymgr.ErrUnreachable,
	} {
		err := explain("disks", "decrypt data key", code)
		if keymgr.IsLoss(err) != (errors.Is(want, keymgr.ErrDisabled)) {
			t.Errorf("%v counts as a loss: %v", code, keymgr.IsLoss(err))
		}
		if e := wantError(t, code.Error(), err, want); e.Key != "pkcs11:disks" || e.Code == "" || strings.Contains(e.Code, " ") {
			t.Errorf("%v: %+v", code, e)
		}
	}
}

func TestRoot(t *testing.T) {
	token, k := newKMS(t)
	r := Root{Config: configOf(token), Key: "disks"}
	root, err := secret.Random(rootSize)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Destroy()
	wrapped, err := r.Wrap(root)
	if err != nil {
		t.Fatal(err)
	}
	token.Key(t, "disks", []byte{2}) // a new version, and another key for new root keys
	r.Key = "another"
	got, err := r.Unwrap(wrapped)
	if err != nil || !got.Equal(root) {
		t.Errorf("Unwrap: %v", err)
	}
	got.Destroy()
	if _, err := r.Wrap(root); !errors.Is(err, keymgr.ErrNotFound) {
		t.Errorf("no such key: %v", err)
	}
	_, err = Root{Config: r.Config}.Wrap(root)
	wantError(t, "no key named", err, keymgr.ErrInvalid)
	for i := range wrapped {
		bad := bytes.Clone(wrapped)
		bad[i] ^= 1
		if got, err := r.Unwrap(bad); err == nil {
			got.Destroy()
			t.Fatalf("byte %d altered, and opened", i)
		}
	}
	// A root key is no data key, and the other way round.
	_, w := generate(t, k, "disks")
	if got, err := r.Unwrap([]byte(fmt.Sprintf(`{"key":"disks","blob":%q}`, w.Blob))); err == nil {
		got.Destroy()
		t.Error("a data key opened as a root key")
	}
	token.Destroy(t, "disks")
	token.Key(t, "disks", []byte{1})
	_, err = r.Unwrap(wrapped)
	if e := wantError(t, "another key of that name", err, keymgr.ErrAccessDenied); e.Code != "RootKeyLocked" {
		t.Errorf("code %q", e.Code)
	}
}
