package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	for doc, want := range map[string]string{
		`{"data":{"plaintext":"abc"}}`: "abc",
		` { "a" : [ 1 , -2.5e+3, {"data":{"plaintext":"x"}} , [ ] ], "b":{}, "c":null,"data" :
			{"ciphertext":"}\"{\\","n":true,"plaintext" : "abc" } }` + "\x00\x00": "abc",
		`{"data":{"plaintext":""}}`: "",
	} {
		if got, ok := find([]byte(doc), "data", "plaintext"); !ok || string(got) != want {
			t.Errorf("%s: %q, %v", doc, got, ok)
		}
	}
	for _, doc := range []string{
		"", "{", "{}", "[]", `{"data":{}}`, `{"data":"plaintext"}`, `{"data":{"plaintext":1}}`, `{"data":{"plaintext":null}}`,
		`{"data":{"plaintext":"abc}}`, `{"data":{"plaintext":"a\"bc"}}`, `{"data":{"x":"plaintext"}}`, `{"plaintext":"abc"}`,
		`{"data" {"plaintext":"abc"}}`, `{"x":,"data":{"plaintext":"abc"}}`, `{"x":[1,"data":{"plaintext":"abc"}}`,
		`{"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `,"data":{"plaintext":"abc"}}`,
	} {
		if got, ok := find([]byte(doc), "data", "plaintext"); ok {
			t.Errorf("%s: %q", doc, got)
		}
	}
}

// FuzzFind: what encoding/json finds is found, and the same, if it has no escape.
func FuzzFind(f *testing.F) {
	for _, s := range []string{
		`{"data":{"plaintext":"abc"}}`, `{"a":[1,{"b":null}],"data":{"c":"\"","plaintext":"x"}}`, `{"data":{"plaintext":"\u0041"}}`,
		`[`, `{"data":[{"plaintext":"a"}]}`, `{"plaintext":1.5e3,"data":{"d":{},"plaintext":"=="}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, ok := find(doc, "data", "plaintext")
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
