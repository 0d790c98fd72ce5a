package vault

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"sealblk/keymgr"
)

func TestParseName(t *testing.T) {
	for in, want := range map[string]name{
		"transit/disks": {"transit", "disks"}, "a/b/c.d-e": {"a/b", "c.d-e"}, "kv_1/k": {"kv_1", "k"},
	} {
		if got, err := parseName(in); err != nil || got != want || got.String() != in {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "disks", "/disks", "transit/", "transit//disks", "../sys/seal", "transit/../disks", "transit/..", "transit/a b", "transit/a?b",
		"transit/%2e", "transit/a#b", "./x", "transit/-a", "transit/a.", "trän/sit",
	} {
		if got, err := parseName(in); !errors.Is(err, keymgr.ErrInvalid) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

func TestParseBlob(t *testing.T) {
	sealed := base64.StdEncoding.EncodeToString(make([]byte, minSealed))
	for in, want := range map[string]int{"vault:v1:" + sealed: 1, "vault:v23:" + sealed: 23} {
		if got, ok := parseBlob(in); !ok || got != want {
			t.Errorf("%q: %d, %v", in, got, ok)
		}
	}
	for _, in := range []string{
		"", "vault:v1:", "vault:v0:" + sealed, "vault:v01:" + sealed, "vault:1:" + sealed, "Vault:v1:" + sealed, " vault:v1:" + sealed,
		"vault:v1:" + sealed + "\n", "vault:v1:" + sealed[:len(sealed)-1], "vault:v1:" + sealed[4:], "vault:v99999999999:" + sealed,
		// The same bytes in other words: unused bits of the last letter.
		"vault:v1:" + strings.TrimSuffix(sealed, "A=") + "B=",
	} {
		if got, ok := parseBlob(in); ok {
			t.Errorf("%q: %d", in, got)
		}
	}
}

func FuzzParseBlob(f *testing.F) {
	f.Add("vault:v1:" + base64.StdEncoding.EncodeToString(make([]byte, minSealed)))
	f.Add("vault:v1:AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		version, ok := parseBlob(s)
		if !ok {
			return
		}
		raw, err := base64.StdEncoding.DecodeString(s[strings.LastIndexByte(s, ':')+1:])
		if err != nil || version < 1 || !strings.HasSuffix(s, ":"+base64.StdEncoding.EncodeToString(raw)) {
			t.Fatalf("%q: version %d, %v", s, version, err)
		}
	})
}
