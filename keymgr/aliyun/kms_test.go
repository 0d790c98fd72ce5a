package aliyun

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/alibabacloud-go/kms-20160120/v3/client"
	util "github.com/alibabacloud-go/tea-utils/v2/service"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
	"sealblk/keymgr/wire"
)

var disk1 = keymgr.Context{keymgr.ContextDisk: "1"}

// wantError checks sentinel and code of an error, which has a hint and is one line.
func wantError(t *testing.T, what string, err, sentinel error, code string) *keymgr.Error {
	t.Helper()
	var e *keymgr.Error
	if !errors.Is(err, sentinel) || !errors.As(err, &e) || e.Code != code || e.Hint == "" {
		t.Errorf("%s: error %v, want %v with the code %s and a hint", what, err, sentinel, code)
		return &keymgr.Error{}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "Signature=") {
		t.Errorf("%s: %q", what, err)
	}
	return e
}

func TestAliasNamesTheKeyBehindIt(t *testing.T) {
	c := newCloud(t)
	key := c.newKey(t, "alias/disks")
	k := open(t, c.config(c.addr))
	dk, w, err := k.GenerateDataKey(t.Context(), "local/alias/disks", disk1)
	must(t, err)
	defer dk.Destroy()
	if w.URI != "aliyun:"+key || w.Version != "1" {
		t.Errorf("wrapped under %s version %s", w.URI, w.Version)
	}
	info, err := k.DescribeKey(t.Context(), "local/alias/disks")
	if err != nil || info.URI != w.URI || info.KeyID != id(key) || info.Region != "local" || info.Origin != "kms" || info.Created.IsZero() {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestStatesAreMapped(t *testing.T) {
	c := newCloud(t)
	k, ctx := open(t, c.config(c.addr)), t.Context()
	key := c.newKey(t, "")
	w, err := k.GenerateDataKeyWithoutPlaintext(ctx, key, disk1)
	must(t, err)
	want := func(state keymgr.State, sentinel error, code, way string) {
		t.Helper()
		if info, err := k.DescribeKey(ctx, key); err != nil || info.State != state {
			t.Errorf("state %s, %v, want %s", info.State, err, state)
		}
		_, err := k.Decrypt(ctx, w, disk1)
		e := wantError(t, string(state), err, sentinel, code)
		if !strings.Contains(e.Error(), key) || !strings.Contains(e.Error(), string(state)) || !strings.Contains(e.Hint, way) {
			t.Errorf("%q with the hint %q does not name key, state and way out", e, e.Hint)
		}
	}
	must(t, c.kms.DisableKey(ctx, id(key)))
	want(keymgr.Disabled, keymgr.ErrDisabled, "Rejected.Disabled", "EnableKey")
	_, err = c.kms.ScheduleKeyDeletion(ctx, id(key), 7, false)
	must(t, err)
	want(keymgr.PendingDeletion, keymgr.ErrPendingDeletion, "Rejected.PendingDeletion", "CancelKeyDeletion")
	if info, _ := k.DescribeKey(ctx, key); info.DeletionDate == nil {
		t.Error("the date of the deletion is not known")
	}
	external, err := c.kms.CreateKey(ctx, local.CreateOptions{External: true})
	must(t, err)
	must(t, c.kms.Authorize(ctx, external.KeyID, local.DiskService, []local.Permission{local.Generate}))
	_, err = k.GenerateDataKeyWithoutPlaintext(ctx, "local/"+external.KeyID, disk1)
	wantError(t, "without material", err, keymgr.ErrPendingImport, "Rejected.PendingImport")
}

func TestAnswersOfTheCloud(t *testing.T) {
	for code, want := range map[string]error{
		"Rejected.Throttling": keymgr.ErrThrottled, "Throttling.User": keymgr.ErrThrottled, "Throttling": keymgr.ErrThrottled,
		"InternalFailure": keymgr.ErrUnreachable, "ServiceUnavailableTemporary": keymgr.ErrUnreachable,
		"Forbidden.KeyNotFound": keymgr.ErrNotFound, "Forbidden.NoPermission": keymgr.ErrAccessDenied,
		"Forbidden.RAM": keymgr.ErrAccessDenied, "NoPermission": keymgr.ErrAccessDenied,
		"InvalidAccessKeyId.NotFound": keymgr.ErrAccessDenied, "InvalidTimeStamp.Expired": keymgr.ErrAccessDenied,
		"InvalidParameter": keymgr.ErrInvalid, "SomethingNew": keymgr.ErrInvalid,
	} {
		if v := judge(code, 400, false); !errors.Is(v.Err, want) {
			t.Errorf("%s: %v, want %v", code, v.Err, want)
		}
	}
	v := judge("InvalidParameter", 400, true)
	if !errors.Is(v.Err, keymgr.ErrContextMismatch) || !errors.Is(v.Err, keymgr.ErrCorrupt) {
		t.Errorf("of a blob: %v", v.Err)
	}
	for status, want := range map[int]error{
		429: keymgr.ErrThrottled, 502: keymgr.ErrUnreachable, 401: keymgr.ErrAccessDenied, 404: keymgr.ErrNotFound, 418: keymgr.ErrInvalid,
	} {
		if v := judge("New", status, false); !errors.Is(v.Err, want) {
			t.Errorf("status %d: %v, want %v", status, v.Err, want)
		}
	}
}

// TestWhatIsNotAKMS answers in ways that a KMS does not.
func TestWhatIsNotAKMS(t *testing.T) {
	c := newCloud(t)
	good := fmt.Sprintf(`{"KeyId":"key","KeyVersionId":"1","CiphertextBlob":"eA==","Plaintext":%q}`, strings.Repeat("A", 43)+strings.Repeat("B", 42)+"A==")
	for name, a := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"a page":          {200, "<html>", keymgr.ErrCorrupt},
		"a failing proxy": {502, "<html>", keymgr.ErrUnreachable},
		"no data key":     {200, `{"KeyId":"key"}`, keymgr.ErrCorrupt},
		"half a key":      {200, `{"Plaintext":"QUFB"}`, keymgr.ErrCorrupt},
		"too much":        {200, strings.Repeat(" ", wire.MaxReply+1) + good, keymgr.ErrCorrupt},
		"equal halves":    {200, strings.Replace(good, strings.Repeat("B", 42), strings.Repeat("A", 42), 1), keymgr.ErrWeakKey},
		"no blob":         {200, strings.Replace(good, "eA==", "", 1), keymgr.ErrCorrupt},
	} {
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(a.status)
			w.Write([]byte(a.body))
		}))
		k := open(t, c.config(strings.TrimPrefix(h.URL, "http://")))
		_, _, err := k.GenerateDataKey(t.Context(), "local/key", disk1)
		if !errors.Is(err, a.want) {
			t.Errorf("%s: %v, want %v", name, err, a.want)
		}
		var e *keymgr.Error
		if errors.As(err, &e) && strings.Contains(e.Hint, "header") {
			t.Errorf("%s: the disk is to blame: %s", name, e.Hint)
		}
		h.Close()
	}
}

// TestLateDataKeyIsWiped when nobody waits for it any more.
func TestLateDataKeyIsWiped(t *testing.T) {
	c := newCloud(t)
	k := open(t, c.config(c.addr))
	wiped := make(chan bool)
	ctx, cancel := context.WithCancel(t.Context())
	began, goOn := make(chan struct{}), make(chan struct{})
	go func() { <-began; cancel() }()
	_, err := send(ctx, k, name{"local", "k"}, func(*sdk.Client, *util.RuntimeOptions) (int, error) {
		close(began)
		<-goOn
		return 7, nil
	}, func(n int) { wiped <- n == 7 })
	close(goOn)
	if !errors.Is(err, context.Canceled) || !<-wiped {
		t.Errorf("%v", err)
	}
}

func TestTLS(t *testing.T) {
	c := newCloud(t)
	calls := atomic.Int32{}
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte(`{"Code":"Forbidden.KeyNotFound","Message":"no","RequestId":"1"}`))
	}))
	h.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	h.StartTLS()
	defer h.Close()
	config := c.config("")
	config.Endpoint, config.Timeout = h.URL, 5*time.Second
	_, err := open(t, config).DescribeKey(t.Context(), "local/key")
	e := wantError(t, "certificate of a stranger", err, keymgr.ErrUnreachable, wire.CodeUnreachable)
	if !strings.Contains(e.Hint, "kms.aliyun.ca") || calls.Load() != 0 {
		t.Errorf("hint %q, %d calls", e.Hint, calls.Load())
	}
	config.CA = filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(config.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}), 0o644))
	_, err = open(t, config).DescribeKey(t.Context(), "local/key")
	wantError(t, "with its certificate", err, keymgr.ErrNotFound, "Forbidden.KeyNotFound")
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	c := newCloud(t)
	junk := filepath.Join(t.TempDir(), "junk")
	must(t, os.WriteFile(junk, []byte("access_key_secret = 's3cret'\nmore = 1"), 0o600))
	exposed := filepath.Join(t.TempDir(), "exposed")
	must(t, os.WriteFile(exposed, []byte("access_key_id = 'a'\naccess_key_secret = 's3cret'"), 0o644))
	for name, change := range map[string]func(*Config){
		"plain HTTP":          func(c *Config) { c.Endpoint = "http://192.0.2.1" },
		"not a URL":           func(c *Config) { c.Endpoint = "kms.example.com" },
		"a path":              func(c *Config) { c.Endpoint = "https://kms.example.com/kms" },
		"a password":          func(c *Config) { c.Endpoint = "https://me:pw@kms.example.com" },
		"another scheme":      func(c *Config) { c.Endpoint = "ftp://kms.example.com" },
		"no certificates":     func(c *Config) { c.CA = junk },
		"missing certificate": func(c *Config) { c.CA = junk + "none" },
		"no credentials":      func(c *Config) { c.Credentials = "" },
		"missing credentials": func(c *Config) { c.Credentials = junk + "none" },
		"junk credentials":    func(c *Config) { c.Credentials = junk },
		"exposed credentials": func(c *Config) { c.Credentials = exposed },
	} {
		config := c.config("127.0.0.1:1")
		change(&config)
		_, err := Open(t.Context(), config)
		var e *keymgr.Error
		if !errors.As(err, &e) || e.Hint == "" || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Setenv("DEBUG", "other,tea")
	if _, err := Open(t.Context(), c.config("127.0.0.1:1")); !errors.Is(err, keymgr.ErrInvalid) {
		t.Errorf("DEBUG=tea: %v", err)
	}
}

func TestNewCredentialsNeedNoRestart(t *testing.T) {
	c := newCloud(t)
	key := c.newKey(t, "")
	k := open(t, c.config(c.addr))
	good, err := os.ReadFile(c.credentials)
	must(t, err)
	must(t, os.WriteFile(c.credentials, []byte("access_key_id = 'SEALBLKother'\naccess_key_secret = '0123456789abcdef'"), 0o600))
	_, err = k.DescribeKey(t.Context(), key)
	wantError(t, "another's", err, keymgr.ErrAccessDenied, "InvalidAccessKeyId.NotFound")
	must(t, os.WriteFile(c.credentials, good, 0o600))
	if _, err = k.DescribeKey(t.Context(), key); err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]name{
		"cn-hangzhou/key-hzz1": {"cn-hangzhou", "key-hzz1"}, "local/alias/a/b": {"local", "alias/a/b"},
	} {
		if got, err := parseName(in); err != nil || got != want || got.String() != "aliyun:"+in {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "key", "/key", "cn-hangzhou/", "a.b/key", "A/key", "a/k?x", "a/k k", strings.Repeat("a", 64) + "/k", "-a/k"} {
		if _, err := parseName(in); !errors.Is(err, keymgr.ErrInvalid) {
			t.Errorf("%q: %v", in, err)
		}
	}
	k := open(t, newCloud(t).config("127.0.0.1:1"))
	_, err := k.ReEncrypt(t.Context(), keymgr.WrappedKey{URI: "aliyun:a/k", Version: "1", Blob: []byte("x")}, nil, "b/k")
	wantError(t, "another region", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
}

func TestRegionsHaveEndpoints(t *testing.T) {
	var c Config
	if e, err := c.endpoint("eu-central-1"); err != nil || e != (endpoint{"HTTPS", "kms.eu-central-1.aliyuncs.com"}) {
		t.Errorf("%v, %v", e, err)
	}
	c.Endpoint = "https://kms.example.com:8443"
	if e, err := c.endpoint("eu-central-1"); err != nil || e != (endpoint{"HTTPS", "kms.example.com:8443"}) {
		t.Errorf("%v, %v", e, err)
	}
}

func TestNoSecretsAreLeft(t *testing.T) {
	if n, _ := secret.Live(); n != 0 {
		t.Errorf("%d secrets are in memory", n)
	}
}
