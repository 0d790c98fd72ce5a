package kmip

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/keymgr"
	"sealblk/keymgr/kmip/kmiptest"
	"sealblk/keymgr/secret"
)

func TestMain(m *testing.M) {
	leaktest.Main(m, func() error {
		if n, size := secret.Live(); n != 0 {
			return fmt.Errorf("%d secrets with %d bytes were not destroyed", n, size)
		}
		return nil
	})
}

func open(t *testing.T, c Config) *KMS {
	t.Helper()
	k, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func configOf(s *kmiptest.Server, mode string) Config {
	return Config{Address: s.Address, CA: s.CA, Certificate: s.Certificate, Key: s.Key, Mode: mode, Timeout: 10 * time.Second}
}

func disk(id string) keymgr.Context { return keymgr.Context{keymgr.ContextDisk: id} }

func generate(t *testing.T, k *KMS, key string) (*secret.Buffer, keymgr.WrappedKey) {
	t.Helper()
	dk, w, err := k.GenerateDataKey(t.Context(), key, disk("1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dk.Destroy)
	return dk, w
}

func wantOpens(t *testing.T, k *KMS, w keymgr.WrappedKey, dk *secret.Buffer) {
	t.Helper()
	got, err := k.Decrypt(t.Context(), w, disk("1"))
	if err != nil {
		t.Errorf("Decrypt under %s: %v", w.URI, err)
		return
	}
	defer got.Destroy()
	if !got.Equal(dk) {
		t.Errorf("Decrypt under %s: another data key", w.URI)
	}
}

// wantError checks sentinel and code of an error ("" for any), and that it has advice
// and is one line.
func wantError(t *testing.T, what string, err, sentinel error, code string) {
	t.Helper()
	var e *keymgr.Error
	if !errors.Is(err, sentinel) || !errors.As(err, &e) {
		t.Errorf("%s: error %v, want %v", what, err, sentinel)
		return
	}
	if code != "" && e.Code != code {
		t.Errorf("%s: code %s, want %s: %v", what, e.Code, code, err)
	}
	if e.Hint == "" || strings.Contains(err.Error()+e.Hint, "\n") {
		t.Errorf("%s: %q, hint %q", what, err, e.Hint)
	}
}
