package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// someKey holds bytes that base64 makes / and + of.
var someKey = func() []byte {
	b := make([]byte, keymgr.DataKeySize)
	for i := range b {
		b[i] = byte(255 - i)
	}
	return b
}()

var someText = base64.StdEncoding.EncodeToString(someKey)

func read(t testing.TB, body string) *Reply {
	t.Helper()
	r, err := Read(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Destroy)
	return r
}

func TestTakeKey(t *testing.T) {
	for name, body := range map[string]string{
		"plain":                    `{"Plaintext":"` + someText + `","RequestId":"r","CiphertextBlob":"b"}`,
		"spaced, in another order": "{ \"KeyId\" : \"k\",\n\t\"CiphertextBlob\" : \"b\" , \"Plaintext\" :\r\n \"" + someText + "\" }",
		"escaped slashes":          `{"KeyId":"k","Plaintext":"` + strings.ReplaceAll(someText, "/", `\/`) + `"}`,
		"the name as a value":      `{"RequestId":"Plaintext","Plaintext":"` + someText + `"}`,
		"the name further in":      `{"More":{"Plaintext":"no"},"List":["Plaintext",{"Plaintext":1}],"Plaintext":"` + someText + `"}`,
		"a quote in a value":       `{"RequestId":"\",\"Plaintext\":\"no","Plaintext":"` + someText + `"}`,
	} {
		r := read(t, body)
		dk, err := r.TakeKey("Plaintext")
		if err != nil || !bytes.Equal(dk.Bytes(), someKey) {
			t.Errorf("%s: %v", name, err)
		}
		dk.Destroy()
		left := r.Bytes()
		if len(left) != len(body) || !json.Valid(left) || bytes.Contains(left, []byte(someText[:8])) || bytes.Contains(left, []byte(someText[80:])) {
			t.Errorf("%s: what is left: %s", name, left)
		}
	}
}

func TestRepliesWithoutADataKey(t *testing.T) {
	live, _ := secret.Live()
	for body, want := range map[string]error{
		"": ErrNoKey, "<html>": ErrNoKey, `{"KeyId":"k"}`: ErrNoKey, `{"data":{}}`: ErrNoKey,
		`{"Plaintext":1}`: ErrSyntax, `{"Plaintext":"` + someText: ErrSyntax, `{"Plaintext":"a\"b"}`: ErrSyntax,
		`{"More":{"Plaintext":"` + someText + `"}}`: ErrSyntax, `{"KeyId":,"Plaintext":"` + someText + `"}`: ErrSyntax,
		`{"Plaintext":""}`: ErrNotKey, `{"Plaintext":"abc"}`: ErrNotKey,
		`{"Plaintext":"` + base64.StdEncoding.EncodeToString(someKey[:63]) + `"}`:       ErrNotKey,
		`{"Plaintext":"` + base64.StdEncoding.EncodeToString(append(someKey, 1)) + `"}`: ErrNotKey,
		`{"Plaintext":"` + strings.Repeat("!", 88) + `"}`:                               ErrNotKey,
		`{"Plaintext":"` + strings.Repeat("A", 88) + `"}`:                               ErrNotKey,
		`{"Plaintext":"` + strings.Repeat("A", 85) + `B=="}`:                            ErrNotKey,
	} {
		r, err := Read(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		dk, err := r.TakeKey("Plaintext")
		if dk != nil || !errors.Is(err, want) || !errors.Is(err, keymgr.ErrCorrupt) {
			t.Errorf("%s: %v, want %v", body, err, want)
		}
		dk.Destroy()
		r.Destroy()
	}
	if n, _ := secret.Live(); n != live {
		t.Errorf("%d secrets left", n-live)
	}
}

func TestRead(t *testing.T) {
	body := strings.Repeat("x", MaxReply)
	if r := read(t, body[1:]); string(r.Bytes()) != body[1:] {
		t.Error("another body")
	}
	if _, err := Read(strings.NewReader(body)); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
	broken := io.MultiReader(strings.NewReader("{"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := Read(broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("broken off: %v", err)
	}
	var none *Reply
	none.Destroy()
}

// FuzzTakeKey: a data key that is taken is the one that encoding/json finds, and
// is gone from the reply.
func FuzzTakeKey(f *testing.F) {
	for _, s := range []string{
		`{"Plaintext":"` + someText + `","KeyId":"k"}`, `{"A":{"Plaintext":"x"},"Plaintext":"` + someText + `"}`,
		`{"Plaintext`, `{"\\":"\"","Plaintext":""}`, `{"Plaintext" : "`, `"Plaintext"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		before := bytes.Clone(doc)
		dk, err := takeKey(doc, "Plaintext")
		defer dk.Destroy()
		if (dk == nil) != (err != nil) {
			t.Fatalf("%q: both or neither: %v", before, err)
		}
		if !json.Valid(before) || bytes.Count(before, []byte("laintext")) != 1 {
			return // the parsers may differ
		}
		if !json.Valid(doc) {
			t.Fatalf("%q: what is left is not JSON: %q", before, doc)
		}
		var r struct{ Plaintext []byte }
		if err == nil && (json.Unmarshal(before, &r) != nil || !bytes.Equal(r.Plaintext, dk.Bytes())) {
			t.Fatalf("%q: another data key", before)
		}
	})
}
