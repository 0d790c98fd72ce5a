package vault

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/vault/vaulttest"
)

func TestMain(m *testing.M) { kmstest.Main(m) }

// file writes a secret to a file.
func file(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// open opens the KMS for a test.
func open(t testing.TB, c Config) *KMS {
	t.Helper()
	k, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// byToken is the configuration of a host with a token.
func byToken(t testing.TB, s *vaulttest.Server, token string) Config {
	t.Helper()
	return Config{Address: "https://" + s.Addr, CAFile: s.CAFile, TokenFile: file(t, token)}
}

// works checks that a data key can be made and opened, and returns it wrapped.
func works(t testing.TB, k *KMS, key string) keymgr.WrappedKey {
	t.Helper()
	dk, w, err := k.GenerateDataKey(t.Context(), key, kmstest.Disk("1"))
	if err != nil {
		t.Fatal(err)
	}
	defer dk.Destroy()
	kmstest.WantOpens(t, k, w, dk)
	return w
}

// wantError checks an error's kind, and that it is one line with a hint of these words.
func wantError(t testing.TB, what string, err, want error, hint string) {
	t.Helper()
	var e *keymgr.Error
	if !errors.Is(err, want) || !errors.As(err, &e) || !strings.Contains(e.Hint, hint) {
		t.Errorf("%s: error %v, want %v with the hint %q", what, err, want, hint)
		return
	}
	if strings.Contains(err.Error()+e.Hint, "\n") {
		t.Errorf("%s: more than one line: %q", what, err)
	}
}
