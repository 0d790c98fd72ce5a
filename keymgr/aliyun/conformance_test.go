package aliyun

import (
	"context"
	"strings"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

// settled is a KMS whose calls return when the server, which is in the same process, has
// wiped its own secrets: the suite counts those that are left.
type settled struct {
	*KMS
	c *cloud
}

func (s settled) GenerateDataKey(ctx context.Context, key string, ec keymgr.Context) (*secret.Buffer, keymgr.WrappedKey, error) {
	defer s.c.settle()
	return s.KMS.GenerateDataKey(ctx, key, ec)
}

func (s settled) Decrypt(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context) (*secret.Buffer, error) {
	defer s.c.settle()
	return s.KMS.Decrypt(ctx, w, ec)
}

// TestConformance runs the suite against the embedded KMS behind this service's API.
func TestConformance(t *testing.T) {
	c := newCloud(t)
	kmstest.Run(t, func(t testing.TB) *kmstest.Subject {
		proxy := kmstest.NewProxy(t, c.addr)
		k := open(t, c.config(proxy.Addr()))
		const short = 300 * time.Millisecond
		return &kmstest.Subject{
			KMS: settled{k, c}, Scheme: Scheme, Timeout: short,
			NewKey:     func(t testing.TB) string { return c.newKey(t, "") },
			UnknownKey: "local/key-" + strings.Repeat("0", 32),
			Disable:    func(t testing.TB, key string) { must(t, c.kms.DisableKey(t.Context(), id(key))) },
			Enable:     func(t testing.TB, key string) { must(t, c.kms.EnableKey(t.Context(), id(key))) },
			Rotate: func(t testing.TB, key string) {
				_, err := c.kms.RotateKey(t.Context(), id(key))
				must(t, err)
			},
			Deny: func(t testing.TB, key string) { must(t, c.kms.Revoke(t.Context(), id(key), local.DiskService)) },
			Throttle: func(_ testing.TB, n int) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.throttle = n
			},
			// Nobody waits for a proxy that hangs; a busy machine may take its time otherwise.
			Hang:  func(t testing.TB) { k.config.Timeout = short; proxy.Hang(t) },
			Mend:  func(t testing.TB) { k.config.Timeout = patience; proxy.Mend(t) },
			Break: proxy.Break,
		}
	})
}
