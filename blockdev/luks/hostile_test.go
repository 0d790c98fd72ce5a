package luks

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// seal makes a file with two good copies of that JSON text, as a hostile writer can.
func seal(doc []byte) *memFile {
	f := &memFile{b: make([]byte, 2*defaultHdrSize)}
	bin := newBinary("0a1b2c3d-4e5f-4061-8273-8495a6b7c8d9", "")
	for _, off := range []uint64{0, defaultHdrSize} {
		copy(f.b[off:], bin.derive(off, 1, make([]byte, sizeSalt), doc))
	}
	return f
}

// TestHostileMetadata: each replacement in a good header's JSON is refused with the
// right error.
func TestHostileMetadata(t *testing.T) {
	good := string(mustOpen(t, headOf(t, testParams(), testKey(1))).doc.encode())
	for _, c := range []struct {
		from, to string
		want     error
	}{
		{`"config":{`, `"config":{"requirements":{"mandatory":["online-reencrypt-v2"]},`, ErrRequirement},
		{`"config":{`, `"config":{"requirements":{"mandatory":["opal"]},`, ErrRequirement},
		{`"config":{`, `"config":{"requirements":{"mandatory":"x"},`, ErrRequirement},
		{`"config":{`, `"config":{"requirements":["offline-reencrypt"],`, ErrRequirement},
		{`"config":{`, `"config":{"requirements":{"mandatory":[null]},`, ErrRequirement},
		{`"config":{`, `"konfig":{`, ErrDamaged},
		{`"json_size":"12288"`, `"json_size":"12289"`, ErrDamaged},
		{`"json_size":"12288"`, `"json_size":12288`, ErrDamaged},
		{`"json_size":"12288"`, `"json_size":"18446744073709551615"`, ErrDamaged},
		{`"keyslots_size":"16744448"`, `"keyslots_size":"16744449"`, ErrDamaged},
		{`"keyslots_size":"16744448"`, `"keyslots_size":"16748544"`, ErrDamaged}, // reaches into the data
		{`"keyslots_size":"16744448"`, `"keyslots_size":"1099511627776"`, ErrDamaged},
		{`"keyslots_size":"16744448"`, `"keyslots_size":"-4096"`, ErrDamaged},
		{`"offset":"16777216"`, `"offset":"4096"`, ErrDamaged}, // data over the header
		{`"offset":"16777216"`, `"offset":"16777217"`, ErrDamaged},
		{`"offset":"16777216"`, `"offset":"9223372036854775296"`, ErrDamaged},
		{`"offset":"16777216"`, `"offset":"+16777216"`, ErrDamaged},
		{`"offset":"16777216"`, `"offset":""`, ErrDamaged},
		{`"offset":"16777216"`, `"offset":null`, ErrDamaged},
		{`"size":"1073741824","iv`, `"size":"0","iv`, ErrDamaged},
		{`"size":"1073741824","iv`, `"size":"1073741825","iv`, ErrDamaged},
		{`"size":"1073741824","iv`, `"size":"18446744073709551616","iv`, ErrDamaged},
		{`"size":"1073741824","iv`, `"size":"9223372036854775296","iv`, ErrDamaged},
		{`"size":"1073741824","iv`, `"iv`, ErrDamaged},
		{`"sector_size":512}`, `"sector_size":513}`, ErrDamaged},
		{`"sector_size":512}`, `"sector_size":8192}`, ErrDamaged},
		{`"sector_size":512}`, `"sector_size":5.12e2}`, ErrDamaged},
		{`"sector_size":512}`, `"sector_size":-512}`, ErrDamaged},
		{`"sector_size":512}`, `"sector_size":99999999999999999999}`, ErrDamaged},
		{`"iv_tweak":"0"`, `"iv_tweak":"8"`, ErrUnsupported},
		{`"type":"crypt"`, `"type":"linear"`, ErrUnsupported},
		{`aes-xts-plain64`, `aes-cbc-essiv:sha256`, ErrUnsupported},
		{`aes-xts-plain64`, `aes-xts-plain`, ErrUnsupported},
		{`"iv_tweak":"0"`, `"iv_tweak":"0","integrity":{"type":"hmac(sha256)"}`, ErrUnsupported},
		{`"iv_tweak":"0"`, `"iv_tweak":"0","flags":["in-reencryption"]`, ErrUnsupported},
		{`"segments":{`, `"segments":{"1":{},`, ErrUnsupported},
		{`"segments":["0"]`, `"segments":["1"]`, ErrDamaged},
		{`"segments":["0"]`, `"segments":[]`, ErrDamaged},
		{`"segments":["0"]`, `"segments":[0]`, ErrDamaged},
		{`"digests":{`, `"digests":{"1":{"segments":["0"],"keyslots":[],"type":"pbkdf2","hash":"sha1"},`, ErrUnsupported},
		{`"type":"pbkdf2"`, `"type":"argon2id"`, ErrUnsupported},
		{`"hash":"sha256"`, `"hash":"sha512"`, ErrUnsupported},
		{`"iterations":1000`, `"iterations":999`, ErrDamaged},
		{`"iterations":1000`, `"iterations":4294967295`, ErrDamaged},
		{`"salt":"`, `"salt":"!`, ErrDamaged},
		{`"salt":"`, `"salt":"AAAA`, nil},
		{`"digest":"`, `"digest":"AAAA`, ErrDamaged},
		{`"type":"pbkdf2","keyslots":[]`, `"type":"pbkdf2","keyslots":["0"]`, ErrDamaged},
		{`"keyslots":{},"tokens"`, `"keyslots":[],"tokens"`, ErrDamaged},
		{`"keyslots":{},"tokens"`, `"keyslots":{},"nokens"`, ErrDamaged},
		{`"keyslots":{},"tokens"`, `"keyslots":{},"keyslots":{},"tokens"`, ErrDamaged},
		{`"keyslots":{},"tokens"`, `"keyslots":{},"key\u0073lots":{},"tokens"`, ErrDamaged},
		{`{"keyslots":{},`, `[{"keyslots":{},`, ErrDamaged},
		{`{"keyslots":{},`, `{"keyslots":{},"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `,`, ErrDamaged},
		{`{"keyslots":{},`, `{"keyslots":{},"x":` + strings.Repeat("[", 11000), ErrDamaged},
		{`{"keyslots":{},`, "{\"keyslots\":{},\"x\":\"\x00\",", ErrDamaged},
	} {
		if n := strings.Count(good, c.from); n != 1 && c.from != `aes-xts-plain64` && c.from != `"segments":{` {
			t.Fatalf("%q occurs %d times in %s", c.from, n, good)
		}
		_, err := Open(seal([]byte(strings.Replace(good, c.from, c.to, 1))))
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%.80s: got %v, want %v", c.to, err, c.want)
		}
	}
}

// TestKeySizeOfSlots: the volume key behind a passphrase must be of 512 bits.
func TestKeySizeOfSlots(t *testing.T) {
	good := string(mustOpen(t, headOf(t, testParams(), testKey(1))).doc.encode())
	good = strings.Replace(good, `"type":"pbkdf2","keyslots":[]`, `"type":"pbkdf2","keyslots":["3"]`, 1)
	for size, want := range map[int]error{64: nil, 32: ErrUnsupported} {
		slot := fmt.Sprintf(`"keyslots":{"3":{"key_size":%d}},"tokens"`, size)
		h, err := Open(seal([]byte(strings.Replace(good, `"keyslots":{},"tokens"`, slot, 1))))
		if !errors.Is(err, want) || want == nil && h.Keyslots()[0] != "3" {
			t.Errorf("key of %d bytes: %v, want %v", size, err, want)
		}
	}
}

// TestHostileBinary: fields of the binary header that a checksum does not protect
// from who can compute it.
func TestHostileBinary(t *testing.T) {
	good := headOf(t, testParams(), testKey(1))
	for name, c := range map[string]struct {
		change func(m image)
		text   string
	}{
		"version 3":     {func(m image) { m[offVersion+1] = 3 }, "LUKS version 3"},
		"size 0":        {func(m image) { clear(m[offHdrSize:][:8]) }, "header size 0"},
		"size huge":     {func(m image) { m[offHdrSize] = 0xff }, "is not legal"},
		"size 24 KiB":   {func(m image) { m[offHdrSize+6] = 0x60 }, "is not legal"},
		"size 4 MiB":    {func(m image) { m[offHdrSize+6], m[offHdrSize+5] = 0, 0x40 }, "file ends"},
		"other place":   {func(m image) { m[offHdrOffset+6] = 0x40 }, "found at byte 0"},
		"algorithm":     {func(m image) { copy(m[offCsumAlg:], "sha1\x00\x00") }, `"sha1"`},
		"no terminator": {func(m image) { m[len(m)-1] = '}' }, "not terminated"},
		"not JSON":      {func(m image) { m[binarySize] = '[' }, "not valid JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			f := good.head()
			m := image(f.b[:defaultHdrSize])
			c.change(m)
			sum := m.checksum()
			copy(m[offCsum:], sum[:])
			h := mustOpen(t, f)
			if w := h.Warnings(); len(w) != 1 || !strings.Contains(w[0], c.text) {
				t.Errorf("warnings %q, want %q", w, c.text)
			}
		})
	}
}

// TestCopiesThatDiffer: both valid, same number, other content: the first one, as
// cryptsetup does, and a warning.
func TestCopiesThatDiffer(t *testing.T) {
	a, b := headOf(t, testParams(), testKey(1)), headOf(t, testParams(), testKey(2))
	copy(a.b[0x4000:], b.b[0x4000:])
	h := mustOpen(t, a)
	if len(h.Warnings()) != 1 || !h.Copies()[0].Used || h.VerifyKey(testKey(1)) != nil {
		t.Errorf("warnings %q", h.Warnings())
	}
}

// TestSequenceNumberUsedUp: a counter that wraps would make the new copy the older one.
func TestSequenceNumberUsedUp(t *testing.T) {
	f := headOf(t, testParams(), testKey(1))
	doc := mustOpen(t, f).doc.encode()
	for _, off := range []uint64{0, defaultHdrSize} {
		copy(f.b[off:], image(f.b).derive(off, 1<<64-1, make([]byte, sizeSalt), doc))
	}
	if err := Update(f, mustOpen(t, f), nil); !errors.Is(err, ErrUnsupported) || len(f.events) != 0 {
		t.Errorf("got %v after %d writes", err, len(f.events))
	}
}
