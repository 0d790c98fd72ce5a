package kmsserver

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// drop takes the secret of a new access key and forgets it.
func drop(string, *secret.Buffer) error { return nil }

func TestAccessKeysComeAndGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "access-keys")
	if list, err := ListAccessKeys(path); err != nil || len(list) != 0 {
		t.Errorf("before the first: %v, %v", list, err)
	}
	var handed string
	a, err := CreateAccessKey(t.Context(), path, "operator", func(id string, text *secret.Buffer) error {
		handed = id + " " + string(text.Bytes())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := CreateAccessKey(t.Context(), path, "disk-service", drop)
	if err != nil || a.ID == b.ID {
		t.Fatalf("%v, %v, %v", a, b, err)
	}
	if list, err := ListAccessKeys(path); err != nil || len(list) != 2 || list[0] != a || list[1] != b {
		t.Errorf("%v, %v", list, err)
	}
	data, err := os.ReadFile(path)
	id, text, _ := strings.Cut(handed, " ")
	if err != nil || !strings.Contains(string(data), id+" operator "+text+"\n") || len(text) != secretText {
		t.Errorf("the file does not hold what was handed out: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := DeleteAccessKey(t.Context(), path, a.ID); err != nil {
		t.Error(err)
	}
	if err := DeleteAccessKey(t.Context(), path, a.ID); !errors.Is(err, ErrNoAccessKey) {
		t.Errorf("deleted again: %v", err)
	}
	if list, err := ListAccessKeys(path); err != nil || len(list) != 1 || list[0] != b {
		t.Errorf("afterwards: %v, %v", list, err)
	}
}

// TestKilledEditLeavesNoSecrets: the next edit removes the copy that it left.
func TestKilledEditLeavesNoSecrets(t *testing.T) {
	dir := t.TempDir()
	path, torn := filepath.Join(dir, "access-keys"), filepath.Join(dir, ".access-keys.123.tmp")
	foreign := filepath.Join(dir, ".others.123.tmp")
	for _, name := range []string{torn, foreign} {
		if err := os.WriteFile(name, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := CreateAccessKey(t.Context(), path, "p", drop); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(torn); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the copy is still there: %v", err)
	}
	if _, err := os.Lstat(foreign); err != nil {
		t.Errorf("another's file: %v", err)
	}
}

func TestAccessKeyThatCannotBeSavedIsNotMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access-keys")
	full := errors.New("disk full")
	if _, err := CreateAccessKey(t.Context(), path, "p", func(string, *secret.Buffer) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	for _, principal := range []string{"Bob!", "", "kms"} {
		if _, err := CreateAccessKey(t.Context(), path, principal, drop); !errors.Is(err, keymgr.ErrInvalid) {
			t.Errorf("%q: %v", principal, err)
		}
	}
	if list, err := ListAccessKeys(path); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestAccessKeyFilesThatAreRefused(t *testing.T) {
	const line = "SEALBLKabc operator 0123456789abcdef\n"
	for name, text := range map[string]string{
		"empty": "", "another head": "x\n" + line, "two words": accessKeysHead + "\nSEALBLKabc operator\n",
		"twice": accessKeysHead + "\n" + line + line, "the KMS itself": accessKeysHead + "\nSEALBLKabc kms 0123456789abcdef\n", "bad principal": accessKeysHead + "\nSEALBLKabc Bob! 0123456789abcdef\n",
		"bad id": accessKeysHead + "\nü operator 0123456789abcdef\n", "short secret": accessKeysHead + "\nSEALBLKabc operator 0123\n",
		"blank line": accessKeysHead + "\n\n" + line,
	} {
		path := filepath.Join(t.TempDir(), "access-keys")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenAccessKeys(path)
		if !errors.Is(err, ErrAccessKeys) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "0123") {
			t.Errorf("%s: %v", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "access-keys")
	if err := os.WriteFile(path, []byte(accessKeysHead+"\n"+line), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAccessKeys(path); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by others: %v", err)
	}
	if _, err := OpenAccessKeys(path + "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// TestUnreadableFileLetsNobodyIn: neither the old keys nor the new.
func TestUnreadableFileLetsNobodyIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access-keys")
	k, err := CreateAccessKey(t.Context(), path, "p", drop)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := OpenAccessKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	known := func() (is bool) {
		keys.use(k.ID, func(_ string, known bool, _ []byte) error { is = known; return nil })
		return is
	}
	if !known() {
		t.Error("the key is not known")
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if known() {
		t.Error("a damaged file lets the old key in")
	}
	if n, _ := secret.Live(); n != 0 {
		t.Errorf("%d secrets are in memory", n)
	}
}
