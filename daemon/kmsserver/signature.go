package kmsserver

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// claim is what a request says of who made it and when. It is true if the signature is
// the one that the access key's secret makes.
type claim struct {
	accessKey string
	nonce     string
	time      time.Time
	signature []byte
	// sign makes the signature; the secret is not kept.
	sign func(secret []byte) []byte
}

// holds tells, in constant time, whether the claim was made with a secret.
func (c *claim) holds(secret []byte) bool {
	return subtle.ConstantTimeCompare(c.sign(secret), c.signature) == 1
}

const (
	acs3 = "ACS3-HMAC-SHA256"
	acs4 = "ACS4-HMAC-SHA256"

	timeForm = "2006-01-02T15:04:05Z"
	maxNonce = 128
)

// mustSign are the headers that a signature over headers has to cover.
var mustSign = []string{
	"host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version",
}

// readHeaders reads a request whose header is signed, in the third or fourth version of
// the service's signatures.
func (q *request) readHeaders(r *http.Request, query map[string]string, body []byte) error {
	algorithm, fields, err := parseAuthorization(r.Header)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	digest := hex.EncodeToString(sum[:])
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Acs-Content-Sha256")), []byte(digest)) != 1 {
		return faultf(codeIncomplete, "the header x-acs-content-sha256 is not the SHA-256 of the body")
	}
	headers, err := canonicalHeaders(r, fields["SignedHeaders"], len(body) > 0)
	if err != nil {
		return err
	}
	if q.claim.signature, err = hex.DecodeString(fields["Signature"]); err != nil {
		return faultf(codeIncomplete, "the signature is not hexadecimal")
	}
	canonical := strings.Join([]string{
		r.Method, "/", canonicalQuery(query, algorithm == acs3), headers, fields["SignedHeaders"], digest,
	}, "\n")
	sum = sha256.Sum256([]byte(canonical))
	text := []byte(algorithm + "\n" + hex.EncodeToString(sum[:]))
	q.action = r.Header.Get("X-Acs-Action")
	return q.claim.readSigner(algorithm, fields["Credential"], text, r.Header)
}

// parseAuthorization splits "ALGORITHM Credential=…,SignedHeaders=…,Signature=…".
func parseAuthorization(h http.Header) (algorithm string, fields map[string]string, err error) {
	list := h.Values("Authorization")
	if len(list) == 0 {
		return "", nil, faultf(codeIncomplete, "the request is not signed")
	}
	algorithm, rest, _ := strings.Cut(list[0], " ")
	if len(list) > 1 || algorithm != acs3 && algorithm != acs4 {
		return "", nil, faultf(codeIncomplete, "sign by %s, %s or HMAC-SHA1", acs3, acs4)
	}
	fields = map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		fields[name] = value
	}
	for _, name := range []string{"Credential", "SignedHeaders", "Signature"} {
		if fields[name] == "" {
			return "", nil, faultf(codeIncomplete, "the header Authorization lacks %s", name)
		}
	}
	return algorithm, fields, nil
}

// canonicalHeaders is the signed headers as they are signed: one line each, sorted.
func canonicalHeaders(r *http.Request, signed string, hasBody bool) (string, error) {
	names := strings.Split(signed, ";")
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		return "", faultf(codeIncomplete, "the names of the signed headers are not sorted")
	}
	if left := missing(r, names, hasBody); len(left) > 0 {
		return "", faultf(codeIncomplete, "the header %s is not signed", left[0])
	}
	var text strings.Builder
	for _, name := range names {
		values := r.Header.Values(name)
		if name == "host" {
			values = []string{r.Host}
		}
		if len(values) != 1 {
			return "", faultf(codeIncomplete, "the signed header %s is there %d times", name, len(values))
		}
		text.WriteString(name + ":" + strings.TrimSpace(values[0]) + "\n")
	}
	return text.String(), nil
}

// missing are headers that should be signed and are not.
func missing(r *http.Request, signed []string, hasBody bool) []string {
	must := slices.Clone(mustSign)
	if hasBody {
		must = append(must, "content-type")
	}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-acs-") {
			must = append(must, lower)
		}
	}
	return slices.DeleteFunc(must, func(name string) bool { return slices.Contains(signed, name) })
}

// canonicalQuery is the parameters sorted by name. An empty value keeps its "=" in the
// third version, and loses it in the fourth.
func canonicalQuery(params map[string]string, keepEmpty bool) string {
	list := make([]string, 0, len(params))
	for _, name := range slices.Sorted(maps.Keys(params)) {
		item := name + "=" + escape(params[name])
		if params[name] == "" && !keepEmpty {
			item = name
		}
		list = append(list, item)
	}
	return strings.Join(list, "&")
}

// escape is the service's percent-encoding: that of RFC 3986.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func (c *claim) readSigner(algorithm, credential string, text []byte, h http.Header) error {
	c.accessKey, c.nonce = credential, h.Get("X-Acs-Signature-Nonce")
	c.sign = func(secret []byte) []byte { return mac(sha256.New, secret, text) }
	date := h.Get("X-Acs-Date")
	if algorithm == acs4 {
		scope := strings.Split(credential, "/")
		if len(scope) != 5 || scope[4] != "aliyun_v4_request" || scope[1] != strings.ReplaceAll(date[:min(len(date), 10)], "-", "") {
			return faultf(codeIncomplete, "the credential is not ID/DATE/REGION/PRODUCT/aliyun_v4_request")
		}
		c.accessKey = scope[0]
		c.sign = func(secret []byte) []byte { return signScoped(secret, scope[1:], text) }
	}
	return c.readTime(date)
}

// signScoped derives a key for one day, region and product.
func signScoped(secret []byte, scope []string, text []byte) []byte {
	key := append([]byte("aliyun_v4"), secret...)
	defer clear(key)
	derived := key
	for _, part := range scope {
		derived = mac(sha256.New, derived, []byte(part))
	}
	return mac(sha256.New, derived, text)
}

// readRPC reads a request whose parameters are signed: version 1.0.
func (q *request) readRPC(method string) error {
	p := q.params
	if p["SignatureMethod"] != "HMAC-SHA1" || p["SignatureVersion"] != "1.0" {
		return faultf(codeIncomplete, "SignatureMethod is HMAC-SHA1 and SignatureVersion 1.0")
	}
	signature, err := base64.StdEncoding.DecodeString(p["Signature"])
	if err != nil {
		return faultf(codeIncomplete, "the signature is not Base64")
	}
	signed := maps.Clone(p)
	delete(signed, "Signature")
	text := []byte(method + "&%2F&" + escape(canonicalQuery(signed, true)))
	q.action = p["Action"]
	q.claim = claim{accessKey: p["AccessKeyId"], nonce: p["SignatureNonce"], signature: signature}
	q.claim.sign = func(secret []byte) []byte {
		key := append(slices.Clone(secret), '&')
		defer clear(key)
		return mac(sha1.New, key, text)
	}
	return q.claim.readTime(p["Timestamp"])
}

func (c *claim) readTime(text string) error {
	if text == "" {
		return faultf(codeNoTime, "the request has no time stamp")
	}
	var err error
	if c.time, err = time.Parse(timeForm, text); err != nil {
		return faultf(codeNoTime, "a time stamp is written as %s", timeForm)
	}
	if c.nonce == "" || len(c.nonce) > maxNonce {
		return faultf(codeIncomplete, "a nonce has 1 to %d characters", maxNonce)
	}
	return nil
}

func mac(h func() hash.Hash, key, text []byte) []byte {
	m := hmac.New(h, key)
	m.Write(text)
	return m.Sum(nil)
}
