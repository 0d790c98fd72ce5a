package aliyun

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"sealblk/keymgr"
)

// TestWhatIsNoLoss: what stands in front of the service says nothing of a key, and what
// the service says of an access key neither.
func TestWhatIsNoLoss(t *testing.T) {
	c := newCloud(t)
	for name, a := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"a proxy's page":      {http.StatusForbidden, "<html>no</html>", keymgr.ErrUnreachable},
		"a proxy's 404":       {http.StatusNotFound, "default backend - 404", keymgr.ErrUnreachable},
		"a proxy's JSON":      {http.StatusForbidden, `{"message":"Forbidden"}`, keymgr.ErrUnreachable},
		"a proxy's JSON, 404": {http.StatusNotFound, `{"error":"no route"}`, keymgr.ErrUnreachable},
		"with a code":         {http.StatusNotFound, `{"code":404,"message":"no"}`, keymgr.ErrUnreachable},
		"with a name":         {http.StatusForbidden, `{"code":"Forbidden","message":"no"}`, keymgr.ErrUnreachable},
		"an expired token":    {http.StatusForbidden, `{"Code":"InvalidSecurityToken.Expired","RequestId":"1"}`, keymgr.ErrCredentials},
		"a clock that is off": {http.StatusBadRequest, `{"Code":"InvalidTimeStamp.Expired","RequestId":"1"}`, keymgr.ErrCredentials},
	} {
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(a.status)
			io.WriteString(w, a.body)
		}))
		k := open(t, c.config(strings.TrimPrefix(h.URL, "http://")))
		if err := keymgr.CheckUsable(t.Context(), k, "local/key", ""); keymgr.IsLoss(err) || !errors.Is(err, a.want) {
			t.Errorf("%s: %v, want %v", name, err, a.want)
		}
		h.Close()
	}
}

// TestLostCredentialsAreNoLoss of the key, and are named.
func TestLostCredentialsAreNoLoss(t *testing.T) {
	c := newCloud(t)
	key := c.newKey(t, "")
	k := open(t, c.config(c.addr))
	look := func() error { return keymgr.CheckUsable(t.Context(), k, key, "") }
	must(t, look())
	must(t, os.Truncate(c.credentials, 0))
	emptied := look()
	must(t, os.Remove(c.credentials))
	for name, err := range map[string]error{"emptied": emptied, "removed": look()} {
		var e *keymgr.Error
		if keymgr.IsLoss(err) || !errors.Is(err, keymgr.ErrCredentials) || !errors.As(err, &e) || !strings.Contains(e.Hint, "kms.aliyun.credentials") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
