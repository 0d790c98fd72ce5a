package aliyun

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sealblk/daemon/kmsserver"
	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

func TestMain(m *testing.M) { kmstest.Main(m) }

// cloud is a KMS behind the service's API, as a test administers it.
type cloud struct {
	kms         *local.KMS // as the operator
	addr        string
	credentials string

	mu       sync.Mutex
	throttle int       // how many of the next calls are refused
	running  int       // calls that are being answered
	ended    sync.Cond // of one of them
}

// newCloud serves the embedded KMS in this process.
func newCloud(t testing.TB) *cloud {
	t.Helper()
	dir := kmstest.Folder(t)
	kms, err := local.Open(filepath.Join(dir, "kms"), local.Options{})
	must(t, err)
	t.Cleanup(func() { kms.Close() })
	c := &cloud{kms: kms, credentials: filepath.Join(dir, "credentials.toml")}
	c.ended.L = &c.mu
	file := filepath.Join(dir, "access-keys")
	_, err = kmsserver.CreateAccessKey(t.Context(), file, local.DiskService, func(id string, text *secret.Buffer) error {
		return os.WriteFile(c.credentials, fmt.Appendf(nil, "access_key_id = %q\naccess_key_secret = %q\n", id, text.Bytes()), 0o600)
	})
	must(t, err)
	keys, err := kmsserver.OpenAccessKeys(file)
	must(t, err)
	t.Cleanup(keys.Close)
	c.serve(t, kmsserver.New(kms, "", keys, kmsserver.Options{}))
	return c
}

// serve puts what a test does to calls in front of a server.
func (c *cloud) serve(t testing.TB, s http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c.addr = l.Addr().String()
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.refuse() {
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"Code":"Rejected.Throttling","Message":"QPS Limit Exceeded","RequestId":"1"}`)
			return
		}
		c.count(1)
		defer c.count(-1)
		s.ServeHTTP(w, r)
	})}
	var wg sync.WaitGroup
	wg.Go(func() { h.Serve(l) })
	t.Cleanup(func() { h.Shutdown(context.Background()); wg.Wait() })
}

func (c *cloud) count(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running += n
	c.ended.Broadcast()
}

// settle waits until no call is being answered.
func (c *cloud) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.running > 0 {
		c.ended.Wait()
	}
}

func (c *cloud) refuse() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.throttle == 0 {
		return false
	}
	c.throttle--
	return true
}

// patience is for calls that end.
const patience = 20 * time.Second

// config reaches it, by another address than its own if one is given.
func (c *cloud) config(addr string) Config {
	return Config{Endpoint: "http://" + addr, Credentials: c.credentials, Timeout: patience}
}

// newKey makes a key that the disk service may use.
func (c *cloud) newKey(t testing.TB, alias string) string {
	t.Helper()
	info, err := c.kms.CreateKey(t.Context(), local.CreateOptions{Alias: alias})
	must(t, err)
	must(t, c.kms.Authorize(t.Context(), info.KeyID, local.DiskService, []local.Permission{local.Generate, local.Decrypt, local.ReEncrypt}))
	return "local/" + info.KeyID
}

// id is a key's id in the embedded KMS.
func id(key string) string { return strings.TrimPrefix(key, "local/") }

func open(t testing.TB, c Config) *KMS {
	t.Helper()
	k, err := Open(t.Context(), c)
	must(t, err)
	return k
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
