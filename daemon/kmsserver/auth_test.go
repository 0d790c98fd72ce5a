package kmsserver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	sdk "github.com/alibabacloud-go/kms-20160120/v3/client"
	"github.com/alibabacloud-go/tea/tea"

	"sealblk/keymgr"
	"sealblk/keymgr/local"
)

// signatures are the ways in which the SDK can be told to sign.
var signatures = map[string]func(*openapi.Config){
	"ACS3-HMAC-SHA256": func(*openapi.Config) {},
	"ACS4-HMAC-SHA256": func(c *openapi.Config) { c.SignatureVersion = tea.String("v4") },
	"HMAC-SHA1":        func(c *openapi.Config) { c.SignatureAlgorithm = tea.String("v2") },
}

func TestEachSignatureOfTheSDK(t *testing.T) {
	s := newSite(t)
	id, _ := s.newKey(keymgr.Enabled, false)
	for name, sign := range signatures {
		k := s.keys[local.DiskService]
		request := &sdk.GenerateDataKeyRequest{KeyId: &id, EncryptionContext: map[string]any{"a b": `ä+"*~/=&%`, "empty": ""}}
		if _, err := s.clientWith(k, sign).GenerateDataKey(request); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wrong := accessKeyOf{k.id, strings.Repeat("0", len(k.secret))}
		_, err := s.clientWith(wrong, sign).GenerateDataKey(request)
		wantCode(t, name+" with another secret", err, "SignatureDoesNotMatch", 400)
		_, err = s.clientWith(accessKeyOf{"SEALBLKnobody", k.secret}, sign).GenerateDataKey(request)
		wantCode(t, name+" of nobody", err, "InvalidAccessKeyId.NotFound", 404)
	}
}

// sent is what the SDK sends for a key that is not there, taken down on its way, to be
// given to a server as often as a test likes.
func sent(t *testing.T, k accessKeyOf, sign func(*openapi.Config)) func() *http.Request {
	t.Helper()
	var got *http.Request
	l := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.Background())
		io.WriteString(w, "{}")
	}))
	defer l.Close()
	s := &site{t: t, addr: strings.TrimPrefix(l.URL, "http://")}
	if _, err := s.clientWith(k, sign).DescribeKey(&sdk.DescribeKeyRequest{KeyId: tea.String("alias/none")}); err != nil {
		t.Fatal(err)
	}
	return func() *http.Request {
		r := got.Clone(context.Background())
		r.Body = http.NoBody
		return r
	}
}

// letIn is the code of a request of sent that was let in.
const letIn = "Forbidden.AliasNotFound"

// answerTo is what a server says to a request: the code of its error.
func answerTo(t *testing.T, s *Server, r *http.Request) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	var body struct{ Code, RequestId string }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.RequestId == "" {
		t.Fatalf("reply %q: %v", w.Body.String(), err)
	}
	return body.Code
}

func TestEveryPartOfARequestIsSigned(t *testing.T) {
	s := newSite(t)
	s.newKey(keymgr.Enabled, false) // so that there is a KMS
	for name, sign := range signatures {
		base := sent(t, s.keys[local.Operator], sign)
		changes := map[string]func(*http.Request){
			"method":    func(r *http.Request) { r.Method = http.MethodGet },
			"parameter": func(r *http.Request) { r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "none", "other", 1) },
			"one more":  func(r *http.Request) { r.URL.RawQuery += "&Description=x" },
			"twice":     func(r *http.Request) { r.URL.RawQuery += "&KeyId=x" },
			"a body": func(r *http.Request) {
				r.Body = io.NopCloser(strings.NewReader("Description=x"))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			},
		}
		if name != "HMAC-SHA1" {
			changes["action"] = func(r *http.Request) { r.Header.Set("X-Acs-Action", "DisableKey") }
			changes["date"] = func(r *http.Request) { r.Header.Set("X-Acs-Date", timestamp(time.Now().Add(time.Second))) }
			changes["nonce"] = func(r *http.Request) { r.Header.Set("X-Acs-Signature-Nonce", "n") }
			changes["version"] = func(r *http.Request) { r.Header.Set("X-Acs-Version", "2017-01-01") }
			changes["header"] = func(r *http.Request) { r.Header.Set("X-Acs-Region", "moon") }
			changes["host"] = func(r *http.Request) { r.Host = "elsewhere" }
			changes["digest"] = func(r *http.Request) { r.Header.Set("X-Acs-Content-Sha256", strings.Repeat("0", 64)) }
			changes["no authorization"] = func(r *http.Request) { r.Header.Del("Authorization") }
			changes["two authorizations"] = func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }
			changes["less signed"] = func(r *http.Request) {
				r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "x-acs-date;", "", 1))
			}
		} else {
			changes["action"] = func(r *http.Request) {
				r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "DescribeKey", "DisableKey", 1)
			}
			changes["no signature"] = func(r *http.Request) {
				q := r.URL.Query()
				q.Del("Signature")
				r.URL.RawQuery = q.Encode()
			}
		}
		for what, change := range changes {
			r := base()
			change(r)
			switch answerTo(t, s.server, r) {
			case codeSignature, codeIncomplete, codeParse, codeNoTime, codeVersion:
			case letIn, "":
				t.Errorf("%s: %s changed, and it was let in", name, what)
			default:
				t.Errorf("%s: %s changed, and the request was looked at", name, what)
			}
		}
		if code := answerTo(t, s.server, base()); code != letIn {
			t.Errorf("%s: unchanged: %s", name, code)
		}
	}
}

func TestReplays(t *testing.T) {
	s := newSite(t)
	s.newKey(keymgr.Enabled, false) // so that there is a KMS
	for name, sign := range signatures {
		r := sent(t, s.keys[local.Operator], sign)
		if code := answerTo(t, s.server, r()); code != letIn {
			t.Errorf("%s: %s", name, code)
		}
		if code := answerTo(t, s.server, r()); code != "SignatureNonceUsed" {
			t.Errorf("%s again: %s", name, code)
		}
	}
}

func TestTimeStamps(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := newReplays(start)
	now := start.Add(time.Hour)
	for _, c := range []struct {
		stamped time.Time
		code    string
	}{
		{now, ""}, {now.Add(-Window), ""}, {now.Add(Window), ""},
		{now.Add(-Window - time.Second), codeTime}, {now.Add(Window + time.Second), codeTime},
	} {
		if err := r.checkTime(now, c.stamped); (err == nil) != (c.code == "") || err != nil && faultOf(err).code != c.code {
			t.Errorf("%v: %v, want %q", c.stamped.Sub(now), err, c.code)
		}
	}
	if err := r.checkTime(start.Add(time.Second), start.Add(-time.Second)); faultOf(err).code != codeStarting {
		t.Errorf("signed before the start: %v", err)
	}
	if err := r.checkTime(start.Add(time.Second), start); err != nil {
		t.Errorf("signed in the second of the start: %v", err)
	}
}

func TestNoncesAreForgottenInTheEnd(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := newReplays(start)
	c := &claim{accessKey: "k", nonce: "n", time: start}
	if err := r.take(start, c); err != nil {
		t.Fatal(err)
	}
	if err := r.take(start.Add(Window), c); faultOf(err).code != codeNonce {
		t.Errorf("at the end of the window: %v", err)
	}
	if err := r.take(start, &claim{accessKey: "other", nonce: "n", time: start}); err != nil {
		t.Errorf("another's nonce: %v", err)
	}
	later := start.Add(Window + 2*time.Minute)
	if err := r.take(later, &claim{accessKey: "k", nonce: "m", time: later}); err != nil || r.count != 1 {
		t.Errorf("%v, %d nonces are kept", err, r.count)
	}
	r.count = maxNonces
	if err := r.take(later, &claim{accessKey: "k", nonce: "o", time: later}); faultOf(err).code != codeThrottled {
		t.Errorf("full: %v", err)
	}
}

func TestOldRequestIsRefused(t *testing.T) {
	now := time.Now()
	s := newSiteWith(t, Options{Now: func() time.Time { return now }})
	r := sent(t, s.keys[local.Operator], func(*openapi.Config) {})
	now = now.Add(Window + time.Minute)
	if code := answerTo(t, s.server, r()); code != "InvalidTimeStamp.Expired" {
		t.Errorf("after %v: %s", Window, code)
	}
}

func TestDeletedAccessKeyEndsAtOnce(t *testing.T) {
	s := newSite(t)
	c := s.client(local.Operator)
	if _, err := c.ListKeys(&sdk.ListKeysRequest{}); err != nil {
		t.Fatal(err)
	}
	s.must(DeleteAccessKey(t.Context(), s.keyFile, s.keys[local.Operator].id))
	_, err := c.ListKeys(&sdk.ListKeysRequest{})
	wantCode(t, "deleted", err, "InvalidAccessKeyId.NotFound", 404)
	s.newAccessKey(local.Operator)
	if _, err := s.client(local.Operator).ListKeys(&sdk.ListKeysRequest{}); err != nil {
		t.Errorf("a new one: %v", err)
	}
}

func TestTooManyRequests(t *testing.T) {
	s := newSiteWith(t, Options{MaxRequests: 1})
	s.server.slots <- struct{}{}
	_, err := s.client(local.Operator).ListKeys(&sdk.ListKeysRequest{})
	wantCode(t, "one too many", err, "Rejected.Throttling", 429)
	<-s.server.slots
	if _, err := s.client(local.Operator).ListKeys(&sdk.ListKeysRequest{}); err != nil {
		t.Error(err)
	}
}

// TestSlowRequestsKeepNobodyOut: a stranger's request that does not end takes no place.
func TestSlowRequestsKeepNobodyOut(t *testing.T) {
	s := newSiteWith(t, Options{MaxRequests: 1})
	reads, body := make(chan struct{}), make(chan struct{})
	slow := httptest.NewRequest(http.MethodPost, "/", readerFunc(func([]byte) (int, error) {
		close(reads)
		<-body
		return 0, io.EOF
	}))
	done := make(chan string)
	go func() { done <- answerTo(t, s.server, slow) }()
	<-reads
	if _, err := s.client(local.Operator).ListKeys(&sdk.ListKeysRequest{}); err != nil {
		t.Errorf("beside a slow request: %v", err)
	}
	close(body)
	if code := <-done; code != codeIncomplete {
		t.Errorf("the slow request: %s", code)
	}
}

// TestSlowRequestsDoNotSpoilTheEnd: a request that is not all there when the server
// stops is no failure of the server.
func TestSlowRequestsDoNotSpoilTheEnd(t *testing.T) {
	s := New(nil, "", nil, Options{})
	s.grace = 50 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, nil) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "100") { // it is being read
		t.Fatalf("%q, %v", line, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestStrangeRequests(t *testing.T) {
	s := newSite(t)
	for _, c := range []struct{ method, target, body, code string }{
		{"PUT", "/", "", codeMethod}, {"POST", "/other", "", codeAction}, {"POST", "/?a=%zz", "", codeParse},
		{"POST", "/?a=1;b=2", "", codeParse}, {"POST", "/?a=1&a=2", "", codeParse}, {"POST", "/?%00=1", "", codeParse},
		{"POST", "/", "x", codeParse}, {"GET", "/?Action=ListKeys", "", codeIncomplete},
		{"POST", "/?Signature=x", "", codeIncomplete}, {"POST", "/", strings.Repeat("x", maxBody+1), codeParse},
		{"POST", "/?Signature=eA==&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0", "", codeNoTime},
	} {
		r := httptest.NewRequest(c.method, "/", strings.NewReader(c.body))
		path, query, _ := strings.Cut(c.target, "?")
		r.URL = &url.URL{Path: path, RawQuery: query}
		if code := answerTo(t, s.server, r); code != c.code {
			t.Errorf("%s %s: %s, want %s", c.method, c.target, code, c.code)
		}
	}
}

func TestPlainHTTPIsForLoopbackOnly(t *testing.T) {
	for addr, fine := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "127.8.9.1:1": true, "localhost:1": true, "0.0.0.0:1": false, ":1": false, "[::]:1": false,
		"192.0.2.1:1": false, "example.com:1": false, "[::ffff:192.0.2.1]:1": false, "nonsense": false,
	} {
		if err := CheckListener(addr, false); (err == nil) != fine {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := CheckListener("0.0.0.0:1", true); err != nil {
		t.Errorf("with TLS: %v", err)
	}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := New(nil, "", nil, Options{}).Serve(t.Context(), l, nil); !errors.Is(err, ErrPlain) {
		t.Errorf("Serve: %v", err)
	}
}

// TestSecretReplyEndsItsConnection and is one response.
func TestSecretReplyEndsItsConnection(t *testing.T) {
	s := newSite(t)
	id, w := s.newKey(keymgr.Enabled, false)
	plain, err := s.kms.As(local.DiskService).Decrypt(t.Context(), w, disk1)
	s.must(err)
	defer plain.Destroy()
	public, hidden, err := secretResponse("ID", []byte(`{"RequestId":"ID","KeyId":"`+id+`"}`), plain)
	s.must(err)
	defer hidden.Destroy()
	if len(public) < hidden.Len() {
		t.Errorf("the public part has %d bytes, the other %d: see writeSecret", len(public), hidden.Len())
	}
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(public)+string(hidden.Bytes()))), nil)
	s.must(err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	var got struct{ Plaintext, RequestId, KeyId string }
	if err != nil || json.Unmarshal(body, &got) != nil || got.KeyId != id || got.RequestId != "ID" || len(got.Plaintext) != 88 || !r.Close {
		t.Errorf("%v: %d bytes, %+v, close %v", err, len(body), fmt.Sprint(got.KeyId), r.Close)
	}
}
