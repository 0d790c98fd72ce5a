package aliyun

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"sealblk/keymgr"
)

var someKey = func() []byte {
	b := make([]byte, keymgr.DataKeySize)
	for i := range b {
		b[i] = byte(255 - i)
	}
	return b
}()

func TestReplyWithADataKey(t *testing.T) {
	text := base64.StdEncoding.EncodeToString(someKey)
	for name, body := range map[string]string{
		"as the server writes it":  `{"Plaintext":"` + text + `","RequestId":"r","CiphertextBlob":"b","KeyId":"k","KeyVersionId":"v"}`,
		"spaced, in another order": "{ \"KeyId\" : \"k\",\n\t\"CiphertextBlob\" : \"b\", \"KeyVersionId\":\"v\" , \"Plaintext\" :\r\n \"" + text + "\" }",
		"escaped slashes":          `{"KeyId":"k","KeyVersionId":"v","CiphertextBlob":"b","Plaintext":"` + strings.ReplaceAll(text, "/", `\/`) + `"}`,
		"the name as a value":      `{"RequestId":"Plaintext","Plaintext":"` + text + `","KeyId":"k","KeyVersionId":"v","CiphertextBlob":"b"}`,
		"the name further in":      `{"More":{"Plaintext":"no"},"List":["Plaintext",{"Plaintext":1}],"Plaintext":"` + text + `","KeyId":"k","KeyVersionId":"v","CiphertextBlob":"b"}`,
		"a quote in a value":       `{"RequestId":"\",\"Plaintext\":\"no","Plaintext":"` + text + `","KeyId":"k","KeyVersionId":"v","CiphertextBlob":"b"}`,
	} {
		dk, r, err := readSecret(strings.NewReader(body))
		if err != nil || !bytes.Equal(dk.Bytes(), someKey) || r != (reply{"b", "k", "v"}) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		dk.Destroy()
	}
}

func TestPlaintextIsCutOut(t *testing.T) {
	text := base64.StdEncoding.EncodeToString(someKey)
	body := []byte(`{"Plaintext":"` + text + `","KeyId":"k"}`)
	dk, err := cutPlaintext(body)
	if err != nil {
		t.Fatal(err)
	}
	defer dk.Destroy()
	if bytes.Contains(body, []byte(text[:12])) || !json.Valid(body) {
		t.Errorf("left: %s", body)
	}
}

func FuzzReply(f *testing.F) {
	text := base64.StdEncoding.EncodeToString(someKey)
	f.Add([]byte(`{"Plaintext":"` + text + `","KeyId":"k"}`))
	f.Add([]byte(`{"A":{"Plaintext":"x"},"Plaintext":"` + text + `"}`))
	f.Add([]byte(`{"Plaintext`))
	f.Add([]byte(`{"\\":"\"","Plaintext":""}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		dk, err := cutPlaintext(body)
		if err != nil {
			return
		}
		defer dk.Destroy()
		var r struct{ Plaintext []byte }
		var all map[string]json.RawMessage
		if json.Unmarshal(before, &all) != nil || bytes.Count(before, []byte("laintext")) != 1 {
			return // not JSON, or the member is there twice: the parsers may differ
		}
		if err := json.Unmarshal(before, &r); err != nil || !bytes.Equal(r.Plaintext, dk.Bytes()) {
			t.Fatalf("%q: another data key, %v", before, err)
		}
	})
}
