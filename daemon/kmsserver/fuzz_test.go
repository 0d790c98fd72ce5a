package kmsserver

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"sealblk/keymgr/secret"
)

func FuzzParseContext(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":"b"}`, `{"a":"b","a":"c"}`, `{"a":1}`, `{"a":{}}`, `[]`, `{"a":"b"} x`, `{"a"`, `null`, `{"\u0061":"x"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ec, err := parseContext(s, "EncryptionContext")
		if err != nil {
			if faultOf(err).code != codeInvalid {
				t.Fatal(err)
			}
			return
		}
		var plain map[string]string
		if err := json.Unmarshal([]byte(s), &plain); err != nil || len(plain) != len(ec) {
			t.Fatalf("%q is taken for %v, %v", s, ec, err)
		}
		for name, value := range plain {
			if ec[name] != value {
				t.Fatalf("%q is taken for %v", s, ec)
			}
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add("POST", "Action=ListKeys", "", "ACS3-HMAC-SHA256 Credential=k,SignedHeaders=host;x-acs-action,Signature=00", "2026-01-01T00:00:00Z")
	f.Add("GET", "Signature=eA==&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0&Timestamp=2026-01-01T00:00:00Z&SignatureNonce=n", "", "", "")
	f.Add("POST", "", "a=b", "ACS4-HMAC-SHA256 Credential=k/20260101/r/Kms/aliyun_v4_request,SignedHeaders=host,Signature=00", "2026-01-01T00:00:00Z")
	f.Fuzz(func(t *testing.T, method, query, body, authorization, date string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Method, r.URL = method, &url.URL{Path: "/", RawQuery: query}
		r.Header = http.Header{
			"Authorization": {authorization}, "X-Acs-Date": {date}, "X-Acs-Action": {"ListKeys"}, "X-Acs-Version": {apiVersion},
			"X-Acs-Signature-Nonce": {"n"}, "Content-Type": {"application/x-www-form-urlencoded"},
			"X-Acs-Content-Sha256": {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		}
		q, err := parseRequest(r)
		if err != nil {
			faultOf(err)
			return
		}
		if q.claim.nonce == "" || q.claim.time.IsZero() || q.claim.holds(nobodys) {
			t.Fatalf("accepted %+v", q)
		}
	})
}

func FuzzParseAccessKeys(f *testing.F) {
	f.Add(accessKeysHead + "\nSEALBLKabc operator 0123456789abcdef\n")
	f.Add(accessKeysHead)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" || len(s) > maxAccessKeys {
			return
		}
		memory, err := secret.New(len(s))
		if err != nil {
			t.Fatal(err)
		}
		defer memory.Destroy()
		copy(memory.Bytes(), s)
		keys, err := parseAccessKeys(memory)
		if err != nil {
			return
		}
		again := accessKeysHead + "\n"
		for _, k := range keys.list {
			again += k.ID + " " + k.Principal + " " + string(keys.secret[k.ID]) + "\n"
		}
		if strings.TrimSuffix(again, "\n") != strings.TrimSuffix(s, "\n") {
			t.Fatalf("%q was read as %q", s, again)
		}
	})
}

func FuzzParseFilters(f *testing.F) {
	f.Add(`[{"Key":"KeyState","Values":["Enabled"]}]`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, s string) {
		if list, err := parseFilters(s); err == nil && len(list) > 10 {
			t.Fatalf("%d filters", len(list))
		}
	})
}
