package aliyun

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"sealblk/keymgr"
)

func TestReplyWithADataKey(t *testing.T) {
	key := bytes.Repeat([]byte{255, 1, 2, 3}, keymgr.DataKeySize/4)
	text := base64.StdEncoding.EncodeToString(key)
	dk, r, err := readSecret(strings.NewReader(`{"KeyId":"k","Plaintext":"` + text + `","RequestId":"r","CiphertextBlob":"b","KeyVersionId":"v"}`))
	if err != nil || !bytes.Equal(dk.Bytes(), key) || r != (reply{"b", "k", "v"}) {
		t.Errorf("%+v, %v", r, err)
	}
	dk.Destroy()
}
