package aws

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sealblk/keymgr"
)

// inFront is an endpoint that answers all calls so, with credentials in a file.
func inFront(t *testing.T, status int, body string) (k *KMS, credentials string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	credentials = filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(credentials, []byte("[default]\naws_access_key_id = A\naws_secret_access_key = B\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, Config{Endpoint: s.URL, Credentials: credentials, Timeout: 10 * time.Second}), credentials
}

// TestWhatIsNoLoss: neither what stands in front of AWS nor the state of a key store says
// anything of a key.
func TestWhatIsNoLoss(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"a proxy's page, 403": {http.StatusForbidden, "<html>no</html>", keymgr.ErrUnreachable},
		"a proxy's page, 401": {http.StatusUnauthorized, "<html>no</html>", keymgr.ErrUnreachable},
		"a proxy's page, 404": {http.StatusNotFound, "default backend - 404", keymgr.ErrUnreachable},
		"a proxy's JSON":      {http.StatusForbidden, `{"message":"Forbidden"}`, keymgr.ErrUnreachable},
		"with a code":         {http.StatusForbidden, `{"code":"AccessDenied","message":"no"}`, keymgr.ErrUnreachable},
		"nothing":             {http.StatusForbidden, "", keymgr.ErrUnreachable},
		"busy":                {http.StatusTooManyRequests, "<html>slow down</html>", keymgr.ErrThrottled},
		"an expired token":    {http.StatusBadRequest, `{"__type":"ExpiredTokenException"}`, keymgr.ErrCredentials},
		"a clock that is off": {http.StatusBadRequest, `{"__type":"InvalidSignatureException"}`, keymgr.ErrCredentials},
		"a lost key store":    {http.StatusOK, `{"KeyMetadata":{"KeyId":"k","KeyState":"Unavailable"}}`, keymgr.ErrNotWatchable},
	} {
		k, _ := inFront(t, c.status, c.body)
		if err := keymgr.CheckUsable(t.Context(), k, in("k"), ""); keymgr.IsLoss(err) || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	k, _ := inFront(t, http.StatusBadRequest, `{"__type":"AccessDeniedException","message":"not authorized"}`)
	if err := keymgr.CheckUsable(t.Context(), k, in("k"), ""); !keymgr.IsLoss(err) {
		t.Errorf("AWS denies the key: %v", err)
	}
}

// TestLostCredentialsAreNoLoss of the key, and are named.
func TestLostCredentialsAreNoLoss(t *testing.T) {
	k, file := inFront(t, http.StatusOK, `{"KeyMetadata":{"KeyId":"k","KeyState":"Enabled"}}`)
	look := func() error { return keymgr.CheckUsable(t.Context(), k, in("k"), "") }
	if err := look(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() error{
		"emptied": func() error { return os.Truncate(file, 0) },
		"removed": func() error { return os.Rename(file, file+".old") },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		var e *keymgr.Error
		if err := look(); keymgr.IsLoss(err) || !errors.Is(err, keymgr.ErrCredentials) || !errors.As(err, &e) || e.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
