package aws

import (
	"testing"
	"time"

	"sealblk/keymgr/aws/awstest"
	"sealblk/keymgr/kmstest"
)

func TestMain(m *testing.M) { kmstest.Main(m) }

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

// in names a key of the tests' region.
func in(key string) string { return awstest.Region + "/" + key }
