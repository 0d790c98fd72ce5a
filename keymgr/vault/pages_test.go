package vault

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
)

// page is an answer of something that need not be Vault.
type page struct {
	status int
	body   string
}

func (p page) write(w http.ResponseWriter) {
	w.WriteHeader(p.status)
	io.WriteString(w, p.body)
}

const (
	lookUp  = "/v1/auth/token/lookup-self"
	theKey  = "/v1/transit/keys/disks"
	logIn   = "/v1/auth/approle/login"
	theCall = "/v1/transit/decrypt/disks"

	goodToken = `{"request_id":"1","data":{"ttl":0}}`
	goodKey   = `{"request_id":"1","data":{"type":"aes256-gcm96","derived":true,"latest_version":2,"min_decryption_version":1,"keys":{"1":1,"2":2}}}`
	// goodBlob has the form of a wrapped key: 92 bytes.
	goodBlob = "vault:v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)

// wrapped is under version 1 of the key.
var wrapped = keymgr.WrappedKey{URI: "vault:transit/disks", Version: "1", Blob: []byte(goodBlob)}

// pages serves answers by path, of a Vault that has the key where it is given none, and
// that is down for calls with it.
func pages(t *testing.T, by map[string]page) *KMS {
	t.Helper()
	return open(t, Config{Address: serve(t, by), TokenFile: file(t, "token")})
}

func serve(t *testing.T, by map[string]page) (url string) {
	t.Helper()
	s := httptest.NewServer(answers(by))
	t.Cleanup(s.Close)
	return s.URL
}

// agentOf serves the same on a socket, as an agent that logs in by itself.
func agentOf(t *testing.T, by map[string]page) (address string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(answers(by))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return "unix://" + path
}

func answers(by map[string]page) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, given := by[r.URL.Path]
		switch {
		case given:
		case r.URL.Path == lookUp:
			p = page{http.StatusOK, goodToken}
		case r.URL.Path == theKey:
			p = page{http.StatusOK, goodKey}
		default:
			p = page{http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`}
		}
		p.write(w)
	})
}

// strangers answer in the place of Vault.
var strangers = map[string]page{
	"a page":                      {http.StatusOK, "<html>back in a minute</html>"},
	"JSON of something else":      {http.StatusOK, `{"status":"ok"}`},
	"JSON of another API":         {http.StatusOK, `{"data":{"name":"x"}}`},
	"a load balancer's 404":       {http.StatusNotFound, "default backend - 404"},
	"a load balancer's 404, JSON": {http.StatusNotFound, `{"error":"no route"}`},
	"nothing":                     {http.StatusNotFound, ""},
	"a proxy's 403":               {http.StatusForbidden, "<html>denied by the proxy</html>"},
	"a proxy's 403, JSON":         {http.StatusForbidden, `{"message":"Forbidden"}`},
	"a proxy's 400":               {http.StatusBadRequest, "<html>"},
	"a proxy's 401":               {http.StatusUnauthorized, "<html>"},
}

// TestWhatVaultDidNotSayIsNoLoss: of the key, of a call with it, and of the token.
func TestWhatVaultDidNotSayIsNoLoss(t *testing.T) {
	for name, p := range strangers {
		for _, path := range []string{theKey, theCall, lookUp} {
			k := pages(t, map[string]page{path: p})
			dk, err := k.Decrypt(t.Context(), wrapped, kmstest.Disk("1"))
			dk.Destroy()
			if keymgr.IsLoss(err) || !errors.Is(err, keymgr.ErrUnreachable) {
				t.Errorf("%s, asked for %s: %v", name, path, err)
			}
		}
	}
}

// TestWhatVaultSaysOfAKeyIsALoss, whatever it says beside it.
func TestWhatVaultSaysOfAKeyIsALoss(t *testing.T) {
	for name, c := range map[string]struct {
		page
		want error
	}{
		"no such key":             {page{http.StatusNotFound, `{"errors":[]}`}, keymgr.ErrNotFound},
		"no such key, and a word": {page{http.StatusNotFound, `{"errors":[],"warnings":["old path"]}`}, keymgr.ErrNotFound},
		"no such engine":          {page{http.StatusNotFound, `{"errors":["no handler for route"]}`}, keymgr.ErrNotFound},
		"another engine":          {page{http.StatusOK, `{"request_id":"1","data":{"name":"x"}}`}, keymgr.ErrNotFound},
		"denied":                  {page{http.StatusForbidden, `{"errors":["permission denied"]}`}, keymgr.ErrAccessDenied},
	} {
		_, err := pages(t, map[string]page{theKey: c.page}).DescribeKey(t.Context(), "transit/disks")
		if !keymgr.IsLoss(err) || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestDeniedByWhom: whether a call was refused for the key or for the token is asked of the
// server, which may not answer any more.
func TestDeniedByWhom(t *testing.T) {
	denied := page{http.StatusForbidden, `{"errors":["permission denied"]}`}
	granted := page{http.StatusOK, `{"auth":{"client_token":"t"}}`}
	for name, c := range map[string]struct {
		token, logIn page
		want         error
		loss         bool
	}{
		"the token is good":   {page{http.StatusOK, goodToken}, granted, keymgr.ErrAccessDenied, true},
		"nobody answers":      {page{http.StatusServiceUnavailable, `{"errors":["sealed"]}`}, granted, keymgr.ErrUnreachable, false},
		"the token has ended": {denied, page{http.StatusBadRequest, `{"errors":["invalid secret id"]}`}, keymgr.ErrCredentials, false},
	} {
		agent := map[string]page{theKey: denied, lookUp: c.token}
		role := map[string]page{theKey: denied, lookUp: c.token, logIn: c.logIn}
		for who, k := range map[string]*KMS{
			"by an agent": open(t, Config{Address: agentOf(t, agent)}),
			"by AppRole":  open(t, Config{Address: serve(t, role), RoleID: "r", SecretIDFile: file(t, "s")}),
		} {
			_, err := k.DescribeKey(t.Context(), "transit/disks")
			if keymgr.IsLoss(err) != c.loss || !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v, want %v", name, who, err, c.want)
			}
		}
	}
}
