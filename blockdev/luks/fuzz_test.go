package luks

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzHeader feeds a binary header and a JSON text, with the checksum made right, so
// that the fuzzer gets behind it. What opens must survive an update unchanged.
func FuzzHeader(f *testing.F) {
	for _, name := range []string{"sealblk-v1.gz", "sealblk-v2.gz", "cryptsetup-2.6.1.gz"} {
		img := image(golden(f, name).b[:defaultHdrSize])
		doc, err := img.json()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(img[:offCsum]), doc, true)
		f.Add([]byte(img[:offCsum]), doc, false)
	}
	f.Fuzz(func(t *testing.T, bin, doc []byte, seal bool) {
		file := &memFile{b: make([]byte, 2*defaultHdrSize)}
		img := image(file.b[:defaultHdrSize])
		copy(img[:binarySize], bin)
		copy(img[binarySize:], doc)
		if seal {
			clear(img[offCsum:endCsum])
			sum := img.checksum()
			copy(img[offCsum:], sum[:])
		}
		h, err := Open(file)
		if err != nil {
			return
		}
		checkOpened(t, file, h)
	})
}

func checkOpened(t *testing.T, f *memFile, h *Header) {
	t.Helper()
	if e, err := h.Data(1 << 40); err == nil && (e.Offset < 0 || e.Size <= 0 || e.Offset+e.Size > 1<<40 || e.Size%int64(e.SectorSize) != 0) {
		t.Fatalf("data at %+v of a file of 1 TiB", e)
	}
	if n := len(f.events); n != 0 {
		t.Fatal("Open wrote")
	}
	tok, terr := h.Token()
	before := h.doc
	seqid := h.Seqid()
	if err := Update(f, h, nil); err != nil {
		if len(f.events) != 0 {
			t.Fatalf("update wrote and failed: %v", err)
		}
		return
	}
	if !slices.EqualFunc(before, h.doc, func(a, b member) bool { return a.name == b.name && bytes.Equal(a.value, b.value) }) {
		t.Fatal("metadata was changed by an update without a change")
	}
	again, terr2 := h.Token()
	if (terr == nil) != (terr2 == nil) || !cmp.Equal(tok, again) {
		t.Fatalf("token %v %v became %v %v", tok, terr, again, terr2)
	}
	if h.Seqid() != seqid+1 || h.Warnings() != nil {
		t.Fatalf("seqid %d became %d, warnings %q", seqid, h.Seqid(), h.Warnings())
	}
}

// FuzzToken: what parses is written in a form that parses to the same.
func FuzzToken(f *testing.F) {
	f.Add(encodedToken(f))
	full := fullToken()
	full.DigestPending = true
	raw, err := full.encode([]byte("[]"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"type":"sealblk","version":1}`))
	f.Add([]byte(`{"a":[{"b":"\"}"}],"a":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tok, err := ParseToken(raw)
		if err != nil {
			return
		}
		out, err := tok.encode([]byte("[]"))
		if err != nil {
			t.Fatalf("parsed and refused to write: %v", err)
		}
		again, err := ParseToken(out)
		if err != nil || !cmp.Equal(tok, again) {
			t.Fatalf("%v: %s became %s", err, raw, out)
		}
	})
}

// FuzzObject: splitting and joining keeps every member, and agrees on their bounds.
func FuzzObject(f *testing.F) {
	f.Add([]byte(` { "a" : [1, {"b":"}\\\""}] , "c":-1e9,"d":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := parseObject(raw)
		if err != nil {
			return
		}
		again, err := parseObject(o.encode())
		if err != nil || len(again) != len(o) {
			t.Fatalf("%v: %s became %s", err, raw, o.encode())
		}
		for i := range o {
			if !bytes.Equal(o[i].value, again[i].value) || o[i].name != again[i].name || !bytes.Equal(o[i].value, bytes.TrimSpace(o[i].value)) {
				t.Fatalf("member %q: %q became %q", o[i].name, o[i].value, again[i].value)
			}
		}
	})
}
