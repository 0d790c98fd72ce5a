package vault

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/vault/vaulttest"
)

// testTimeout is short, as some tests wait for it; patience is for calls that end.
const testTimeout, patience = 500 * time.Millisecond, 20 * time.Second

func TestConformance(t *testing.T) {
	server := vaulttest.Start(t)
	var made atomic.Int32
	kmstest.Run(t, func(t testing.TB) *kmstest.Subject { return subject(t, server, &made) })
}

func subject(t testing.TB, server *vaulttest.Server, made *atomic.Int32) *kmstest.Subject {
	host := server.NewHost(t, fmt.Sprint("host-", made.Add(1)))
	host.Allow(t, "nobody") // so that its absence is told, and no lack of rights
	proxy := kmstest.NewProxy(t, server.Addr)
	config := byToken(t, server, host.Token(t, "1h", ""))
	config.Address, config.Timeout = "https://"+proxy.Addr(), duration(patience)
	k := open(t, config)
	limit := &limiter{next: k.client.http.Transport}
	k.client.http.Transport = limit
	return &kmstest.Subject{
		KMS: k, Scheme: Scheme, UnknownKey: "transit/nobody", Timeout: testTimeout,
		NewKey: func(t testing.TB) string {
			key := fmt.Sprint("key-", made.Add(1))
			host.NewKey(t, key)
			return "transit/" + key
		},
		Disable:  func(t testing.TB, key string) { server.Do(t, http.MethodDelete, keyPath(key)+"/soft-delete", nil) },
		Enable:   func(t testing.TB, key string) { server.Do(t, http.MethodPut, keyPath(key)+"/soft-delete-restore", nil) },
		Rotate:   func(t testing.TB, key string) { server.Do(t, http.MethodPut, keyPath(key)+"/rotate", nil) },
		Deny:     func(t testing.TB, key string) { host.Deny(t, strings.TrimPrefix(key, "transit/")) },
		Throttle: func(_ testing.TB, n int) { limit.left.Store(int32(n)) },
		// Nobody waits for a proxy that hangs; a busy machine may take its time otherwise.
		Hang:  func(t testing.TB) { k.client.config.Timeout = duration(testTimeout); proxy.Hang(t) },
		Mend:  func(t testing.TB) { k.client.config.Timeout = duration(patience); proxy.Mend(t) },
		Break: proxy.Break,
	}
}

func keyPath(key string) string { return "transit/keys/" + strings.TrimPrefix(key, "transit/") }

// limiter answers some requests as a rate limit quota does, which cannot be told to
// refuse an exact number. The quota itself is tried by TestRateLimitQuota.
type limiter struct {
	next http.RoundTripper
	left atomic.Int32
}

func (l *limiter) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.left.Add(-1) < 0 {
		return l.next.RoundTrip(r)
	}
	if r.Body != nil {
		r.Body.Close()
	}
	body := `{"errors":["request path \"transit/datakey/wrapped/k\": rate limit quota exceeded"]}`
	return &http.Response{
		Status: "429 Too Many Requests", StatusCode: http.StatusTooManyRequests, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}, nil
}
