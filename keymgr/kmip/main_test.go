package kmip

import (
	"testing"
	"time"

	"sealblk/keymgr/kmip/kmiptest"
	"sealblk/keymgr/kmstest"
)

func TestMain(m *testing.M) { kmstest.Main(m) }

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
