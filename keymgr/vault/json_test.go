package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"sealblk/keymgr/secret"
)

func TestStringAt(t *testing.T) {
	for doc, want := range map[string]string{
		`{"data":{"plaintext":"abc"}}`: "abc",
		` { "a" : [ 1 , -2.5e+3, {"data":{"plaintext":"x"}} , [ ] ], "b":{}, "c":null,"data" :
			{"ciphertext":"}\"{\\","n":true,"plaintext" : "abc" } }` + "\x00\x00": "abc",
		`{"data":{"plaintext":""}}`: "",
	} {
		if got, ok := stringAt([]byte(doc), "data", "plaintext"); !ok || string(got) != want {
			t.Errorf("%s: %q, %v", doc, got, ok)
		}
	}
	for _, doc := range []string{
		"", "{", "{}", "[]", `{"data":{}}`, `{"data":"plaintext"}`, `{"data":{"plaintext":1}}`, `{"data":{"plaintext":null}}`,
		`{"data":{"plaintext":"abc}}`, `{"data":{"plaintext":"a\"bc"}}`, `{"data":{"x":"plaintext"}}`, `{"plaintext":"abc"}`,
		`{"data" {"plaintext":"abc"}}`, `{"x":,"data":{"plaintext":"abc"}}`, `{"x":[1,"data":{"plaintext":"abc"}}`,
		`{"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `,"data":{"plaintext":"abc"}}`,
	} {
		if got, ok := stringAt([]byte(doc), "data", "plaintext"); ok {
			t.Errorf("%s: %q", doc, got)
		}
	}
}

// FuzzStringAt: what encoding/json finds is found, and the same, if it has no escape.
func FuzzStringAt(f *testing.F) {
	for _, s := range []string{
		`{"data":{"plaintext":"abc"}}`, `{"a":[1,{"b":null}],"data":{"c":"\"","plaintext":"x"}}`, `{"data":{"plaintext":"\u0041"}}`,
		`[`, `{"data":[{"plaintext":"a"}]}`, `{"plaintext":1.5e3,"data":{"d":{},"plaintext":"=="}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, ok := stringAt(doc, "data", "plaintext")
		if ok && bytes.ContainsAny(got, "\"\\\n") {
			t.Fatalf("found %q", got)
		}
		var want struct {
			Data struct {
				Plaintext *string `json:"plaintext"`
			} `json:"data"`
		}
		if json.Unmarshal(doc, &want) != nil || ambiguous(doc) {
			return
		}
		if p := want.Data.Plaintext; p != nil && (!ok || string(got) != *p) {
			t.Fatalf("found %q, %v, want %q", got, ok, *p)
		}
	})
}

// ambiguous documents are those in which encoding/json folds cases, joins duplicates or
// decodes escapes.
func ambiguous(doc []byte) bool {
	lower := bytes.ToLower(doc)
	return bytes.ContainsRune(doc, '\\') || bytes.Count(lower, []byte("data")) != 1 || bytes.Count(lower, []byte("plaintext")) != 1 ||
		!bytes.Contains(doc, []byte("data")) || !bytes.Contains(doc, []byte("plaintext")) || !json.Valid(doc) || !bytes.Equal(bytes.ToValidUTF8(doc, nil), doc) ||
		bytes.Contains(doc, []byte("ſ"))
}

func TestDecodeKey(t *testing.T) {
	live, _ := secret.Live()
	raw := bytes.Repeat([]byte{1, 2, 3, 255}, 16)
	dk, err := decodeKey([]byte(base64.StdEncoding.EncodeToString(raw)))
	if err != nil || !bytes.Equal(dk.Bytes(), raw) {
		t.Fatalf("decodeKey: %v", err)
	}
	dk.Destroy()
	for _, text := range []string{
		"", "abc", base64.StdEncoding.EncodeToString(raw[:63]), base64.StdEncoding.EncodeToString(append(raw, 1)),
		strings.Repeat("!", 88), strings.Repeat("A", 88), strings.Repeat("A", 85) + "B==",
	} {
		if dk, err := decodeKey([]byte(text)); dk != nil || err != nil {
			dk.Destroy()
			t.Errorf("%q: a key, %v", text, err)
		}
	}
	if n, _ := secret.Live(); n != live {
		t.Errorf("%d secrets left", n-live)
	}
}
