package vault

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmip/kmiptest"
	"sealblk/keymgr/kmstest"
)

// TestPipes: each of the credentials may be one.
func TestPipes(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/auth/token/lookup-self" {
			w.Write([]byte(`{"data":{}}`))
			return
		}
		w.WriteHeader(http.StatusNotFound) // which refuses a log-in
		w.Write([]byte(`{"errors":[]}`))
	}))
	defer s.Close()
	dir := kmiptest.Certificates(t)
	key, err := os.ReadFile(filepath.Join(dir, "client.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content string
		config  func(pipe string) Config
		want    error
	}{
		"token":     {"token\n", func(pipe string) Config { return Config{TokenFile: pipe} }, keymgr.ErrNotFound},
		"secret id": {"id\n", func(pipe string) Config { return Config{RoleID: "r", SecretIDFile: pipe} }, keymgr.ErrCredentials},
		"client key": {string(key), func(pipe string) Config {
			return Config{ClientCertFile: filepath.Join(dir, "client.pem"), ClientKeyFile: pipe, TokenFile: file(t, "token")}
		}, keymgr.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			err := kmstest.CheckPipe(t, []byte(c.content), func(ctx context.Context, pipe string, timeout time.Duration) error {
				config := c.config(pipe)
				config.Address, config.Timeout = s.URL, duration(timeout)
				k, err := Open(ctx, config)
				if err != nil {
					return err
				}
				defer k.Close()
				_, err = k.DescribeKey(ctx, "transit/disks")
				return err
			})
			if !errors.Is(err, c.want) {
				t.Errorf("DescribeKey: %v", err)
			}
		})
	}
}
