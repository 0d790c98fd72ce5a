package keymgr

import (
	"errors"
	"strings"
	"testing"
)

func TestParseURI(t *testing.T) {
	for in, want := range map[string]URI{
		"local:alias/acs/ecs":     {"local", "alias/acs/ecs"},
		"alias/acs/ecs":           {"local", "alias/acs/ecs"},
		"acs/ecs":                 {"local", "acs/ecs"},
		"key-0123":                {"local", "key-0123"},
		"vault:transit/disks":     {"vault", "transit/disks"},
		"pkcs11:My HSM key":       {"pkcs11", "My HSM key"},
		"aliyun:cn-hangzhou/key-": {"aliyun", "cn-hangzhou/key-"},
		"aws:eu-central-1/arn:x":  {"aws", "eu-central-1/arn:x"},
	} {
		got, err := ParseURI(in)
		if err != nil || got != want {
			t.Errorf("ParseURI(%q) = %+v, %v, want %+v", in, got, err, want)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for _, in := range []string{
		"", ":", ":key", "local:", "Local:key", "1x:key", "lo cal:key", " key", "key ", "local: key",
		"key\n", "key\x00", "a\xffb", "local:a\tb", "\u200bkey", strings.Repeat("x", maxURI+1),
	} {
		got, err := ParseURI(in)
		if !errors.Is(err, ErrInvalid) || got != (URI{}) {
			t.Errorf("ParseURI(%q) = %+v, %v, want ErrInvalid", in, got, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("ParseURI(%q): error is not one printable line: %q", in, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"local:alias/acs/ecs", "acs/ecs", "aws:r/k:v", ":", "x:", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error %v is not ErrInvalid", err)
			}
			return
		}
		if u.String() != s && u.String() != "local:"+s {
			t.Fatalf("%q became %q", s, u)
		}
		if again, err := ParseURI(u.String()); err != nil || again != u {
			t.Fatalf("%q parses to %+v, its text to %+v, %v", s, u, again, err)
		}
	})
}
