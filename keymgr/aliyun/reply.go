package aliyun

import (
	"encoding/json"
	"fmt"
	"io"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
	"sealblk/keymgr/wire"
)

// reply is what is not secret in a reply.
type reply struct {
	CiphertextBlob string
	KeyId          string
	KeyVersionId   string
}

// readSecret reads a reply with a data key in it, which only ever is in locked memory.
func readSecret(body io.Reader) (dk *secret.Buffer, r reply, err error) {
	text, err := wire.Read(body)
	if err != nil {
		return nil, reply{}, err
	}
	defer text.Destroy()
	if dk, err = text.TakeKey("Plaintext"); err != nil {
		return nil, reply{}, err
	}
	if json.Unmarshal(text.Bytes(), &r) != nil {
		dk.Destroy()
		return nil, reply{}, fmt.Errorf("read reply: %w", keymgr.ErrCorrupt) // the parser's own error shows the text
	}
	return dk, r, nil
}
