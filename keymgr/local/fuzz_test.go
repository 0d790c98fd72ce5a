package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

func FuzzParseBlob(f *testing.F) {
	valid := append([]byte(blobMagic), make([]byte, blobSize-blobID)...)
	valid[blobContext-1] = 1
	f.Add(valid)
	f.Add(valid[:blobSize-1])
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseBlob(data)
		if err != nil {
			if !errors.Is(err, keymgr.ErrCorrupt) {
				t.Fatalf("error %v is not ErrCorrupt", err)
			}
			return
		}
		if !validID(b.id) || b.version == 0 || !bytes.Equal(append(bytes.Clone(b.header), b.sealed...), data) {
			t.Fatalf("parsed %x to %+v", data, b)
		}
	})
}

// FuzzParseFiles gives the parsers files as they are on disk, and their bodies as if
// they had been authenticated.
func FuzzParseFiles(f *testing.F) {
	r := &record{
		ID: newID(), Generation: 1, Region: "local", State: keymgr.Enabled, Origin: originKMS, Created: noon,
		Policy: userPolicy(), Versions: []version{{Number: 1, Created: noon, Material: make([]byte, keySize+sealOverhead)}},
	}
	ix := newIndex()
	ix.Keys[r.ID] = 1
	ix.Pending = []*record{r}
	ix.setAlias("local", ServiceAlias, r.ID)
	root, err := secret.Random(keySize)
	if err != nil {
		f.Fatal(err)
	}
	defer root.Destroy()
	for format, body := range map[string]any{recordFormat: r, indexFormat: ix} {
		data, err := encodeDocument(root, format, body)
		if err != nil {
			f.Fatal(err)
		}
		if _, wrong := parseDocument(data, format); wrong != "" {
			f.Fatal(wrong)
		}
		f.Add(data)
		raw, _ := json.Marshal(body)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, format := range []string{recordFormat, indexFormat} {
			d, wrong := parseDocument(data, format)
			if again, err := json.Marshal(d); wrong == "" && (err != nil || !bytes.Equal(append(again, '\n'), data)) {
				t.Fatalf("accepted a file that it would not write: %q", data)
			}
		}
		if ix, wrong := parseIndex(data); wrong == "" {
			for _, r := range ix.Pending {
				r.info(ix.aliasesOf(r))
			}
		}
		var head struct {
			ID string `json:"id"`
		}
		json.Unmarshal(data, &head)
		if r, wrong := parseRecord(data, head.ID); wrong == "" {
			for _, op := range []operation{opUse, opDescribe, opUpdate, opCancel} {
				r.allow(op)
			}
			if r.info(nil).KeyID != head.ID {
				t.Fatal("record of another key")
			}
		}
	})
}
