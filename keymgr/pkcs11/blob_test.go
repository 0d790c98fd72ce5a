package pkcs11

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"sealblk/keymgr"
)

func testBlob() []byte {
	b := blob{id: []byte{1, 2}, nonce: make([]byte, nonceSize), sealed: make([]byte, keymgr.DataKeySize+tagSize)}
	b.header = blobHeader(b.id, b.digest)
	return b.encode()
}

func TestParseWrapped(t *testing.T) {
	good := keymgr.WrappedKey{URI: "pkcs11:disks", Version: "0102", Blob: testBlob()}
	key, b, err := parseWrapped(good)
	if err != nil || key != "disks" || hex.EncodeToString(b.id) != "0102" {
		t.Fatalf("%q, %+v, %v", key, b, err)
	}
	for what, w := range map[string]keymgr.WrappedKey{
		"other version": {URI: good.URI, Version: "0103", Blob: good.Blob},
		"no version":    {URI: good.URI, Blob: good.Blob},
		"other KMS":     {URI: "local:disks", Version: good.Version, Blob: good.Blob},
		"cut":           {URI: good.URI, Version: good.Version, Blob: good.Blob[:len(good.Blob)-1]},
		"longer":        {URI: good.URI, Version: good.Version, Blob: append(bytes.Clone(good.Blob), 0)},
		"nothing":       {URI: good.URI, Version: good.Version},
	} {
		if _, _, err := parseWrapped(w); !errors.Is(err, keymgr.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestParseName(t *testing.T) {
	for key, want := range map[string]keyName{
		"disks": {label: "disks"}, "a b:c": {label: "a b:c"}, "id=00ff": {id: []byte{0, 0xff}}, "ID=1": {label: "ID=1"},
	} {
		if got, err := parseName(key); err != nil || got.label != want.label || !bytes.Equal(got.id, want.id) {
			t.Errorf("%q: %+v, %v", key, got, err)
		}
	}
	for _, key := range []string{"", "id=", "id=1", "id=xx", "id=" + strings.Repeat("00", maxID+1)} {
		if _, err := parseName(key); !errors.Is(err, keymgr.ErrInvalid) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestConfig(t *testing.T) {
	slot := uint(0)
	good := Config{Module: "/lib/m.so", Token: "t"}
	if c, err := good.withDefaults(); err != nil || c.Sessions != usualSessions || c.Timeout != usualTimeout {
		t.Errorf("%+v, %v", c, err)
	}
	for what, c := range map[string]Config{
		"nothing": {}, "no token": {Module: "/lib/m.so"}, "two tokens": {Module: "/lib/m.so", Token: "t", Slot: &slot},
		"relative":     {Module: "m.so", Token: "t"},
		"sessions":     {Module: "/lib/m.so", Token: "t", Sessions: -1},
		"all sessions": {Module: "/lib/m.so", Token: "t", Sessions: mostSessions + 1},
		"time":         {Module: "/lib/m.so", Token: "t", Timeout: -1},
	} {
		_, err := c.withDefaults()
		var e *keymgr.Error
		if !errors.Is(err, keymgr.ErrInvalid) || !errors.As(err, &e) || e.Hint == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzParseBlob(f *testing.F) {
	f.Add(testBlob())
	f.Add(testBlob()[:40])
	f.Add([]byte(blobMagic + "\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, wrong := parseBlob(data)
		if wrong == "" && !bytes.Equal(b.encode(), data) {
			t.Fatalf("parsed %x to %+v", data, b)
		}
	})
}
