package aws

import (
	"fmt"
	"testing"
	"time"

	"sealblk/internal/leaktest"
	"sealblk/keymgr"
	"sealblk/keymgr/aws/awstest"
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

// open connects to a server.
func open(t *testing.T, c Config) *KMS {
	t.Helper()
	k, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func configOf(s *awstest.Server) Config {
	return Config{Endpoint: s.URL, Credentials: s.Credentials, Timeout: 10 * time.Second}
}

func disk(id string) keymgr.Context { return keymgr.Context{keymgr.ContextDisk: id} }

// in names a key of the tests' region.
func in(key string) string { return awstest.Region + "/" + key }

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
