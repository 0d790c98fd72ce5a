//go:build pkcs11

package softhsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/pkcs11"

	"sealblk/internal/leaktest"
)

// paths are where distributions put the module.
var paths = []string{
	"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/libsofthsm2.so",
}

const (
	label   = "sealblk-test"
	pin     = "1234"
	officer = "5678"
)

// Token is a token of its own for a test.
type Token struct {
	Module  string
	Label   string
	PINFile string
	// Folder holds the token's files, Config is that of the module.
	Folder string
	Config string
	ctx    *pkcs11.Ctx
}

// New makes a token in a folder of the test, to which SOFTHSM2_CONF points as long as
// the test runs.
func New(t testing.TB) *Token {
	t.Helper()
	k := &Token{Module: module(t), Label: label, Folder: t.TempDir()}
	k.PINFile = k.file(t, "pin", pin+"\n")
	tokens := filepath.Join(k.Folder, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	k.Config = k.file(t, "softhsm2.conf", "directories.tokendir = "+tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	t.Setenv("SOFTHSM2_CONF", k.Config)
	if k.ctx = pkcs11.New(k.Module); k.ctx == nil {
		t.Fatalf("%s does not load", k.Module)
	}
	t.Cleanup(k.ctx.Destroy)
	if err := k.running(k.initialise); err != nil {
		t.Fatal(err)
	}
	return k
}

func module(t testing.TB) string {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	leaktest.Missing(t, "SoftHSM (Debian: softhsm2)")
	return ""
}

func (k *Token) file(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(k.Folder, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// running calls f while the module runs; where it did not it does not afterwards.
func (k *Token) running(f func() error) error {
	err := k.ctx.Initialize()
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		return f()
	}
	if err != nil {
		return err
	}
	return errors.Join(f(), k.ctx.Finalize())
}

// initialise makes a token of the empty slot.
func (k *Token) initialise() error {
	slots, err := k.ctx.GetSlotList(false)
	if err != nil || len(slots) == 0 {
		return fmt.Errorf("list %d slots: %w", len(slots), err)
	}
	if err := k.ctx.InitToken(slots[len(slots)-1], officer, k.Label); err != nil {
		return fmt.Errorf("initialise token: %w", err)
	}
	return k.session(pkcs11.CKU_SO, officer, func(s pkcs11.SessionHandle) error { return k.ctx.InitPIN(s, pin) })
}

// session calls f with a session in which a user is logged in.
func (k *Token) session(user uint, pin string, f func(pkcs11.SessionHandle) error) error {
	slot, err := k.Slot()
	if err != nil {
		return err
	}
	s, err := k.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	defer k.ctx.CloseSession(s) //nolint:errcheck // nothing is lost
	if err := k.ctx.Login(s, user, pin); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		return err
	}
	return f(s)
}

// Slot is the number of the slot of the token, while the module runs.
func (k *Token) Slot() (uint, error) {
	slots, err := k.ctx.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, s := range slots {
		if info, err := k.ctx.GetTokenInfo(s); err == nil && info.Label == k.Label {
			return s, nil
		}
	}
	return 0, errors.New("the token is gone")
}

// Key makes an AES-256 key that cannot be extracted; the attributes come on top of what
// such a key has, and win.
func (k *Token) Key(t testing.TB, label string, id []byte, attributes ...*pkcs11.Attribute) {
	t.Helper()
	template := map[uint]*pkcs11.Attribute{}
	for _, a := range append([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_ID, id),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
	}, attributes...) {
		template[a.Type] = a
	}
	var list []*pkcs11.Attribute
	for _, a := range template {
		list = append(list, a)
	}
	k.do(t, func(s pkcs11.SessionHandle) error {
		_, err := k.ctx.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, list)
		return err
	})
}

// Set changes attributes of the objects with a label.
func (k *Token) Set(t testing.TB, label string, attributes ...*pkcs11.Attribute) {
	t.Helper()
	k.each(t, label, func(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
		return k.ctx.SetAttributeValue(s, o, attributes)
	})
}

// Destroy removes the objects with a label.
func (k *Token) Destroy(t testing.TB, label string) {
	t.Helper()
	k.each(t, label, k.ctx.DestroyObject)
}

func (k *Token) each(t testing.TB, label string, f func(pkcs11.SessionHandle, pkcs11.ObjectHandle) error) {
	t.Helper()
	k.do(t, func(s pkcs11.SessionHandle) error {
		if err := k.ctx.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}); err != nil {
			return err
		}
		found, _, err := k.ctx.FindObjects(s, 100)
		err = errors.Join(err, k.ctx.FindObjectsFinal(s))
		for _, o := range found {
			err = errors.Join(err, f(s, o))
		}
		if len(found) == 0 {
			err = errors.Join(err, fmt.Errorf("no object %q", label))
		}
		return err
	})
}

func (k *Token) do(t testing.TB, f func(pkcs11.SessionHandle) error) {
	t.Helper()
	if err := k.running(func() error { return k.session(pkcs11.CKU_USER, pin, f) }); err != nil {
		t.Fatal(err)
	}
}

// Forget closes all sessions with the token, as the removal of one does.
func (k *Token) Forget(t testing.TB) {
	t.Helper()
	slot, err := k.Slot()
	if err == nil {
		err = k.ctx.CloseAllSessions(slot)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Remove takes the token out; back puts it in again.
func (k *Token) Remove(t testing.TB) (back func()) {
	t.Helper()
	in, out := filepath.Join(k.Folder, "tokens"), filepath.Join(k.Folder, "away")
	if err := errors.Join(os.Rename(in, out), os.Mkdir(in, 0o700)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(os.Remove(in), os.Rename(out, in)); err != nil {
			t.Fatal(err)
		}
	}
}
