package aws

import (
	"errors"
	"strings"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
)

func TestNames(t *testing.T) {
	const arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"
	for in, want := range map[string]string{ // what a wrapped key names
		"eu-west-1/1234abcd":     "aws:eu-west-1/1234abcd",
		"eu-west-1/alias/disks":  "aws:eu-west-1/1234abcd",
		"us-gov-east-1/1234abcd": "aws:us-gov-east-1/1234abcd",
		"eu-west-1/" + arn:       "aws:eu-west-1/" + arn,
		"eu-west-1/arn:aws:kms:eu-west-1:111122223333:alias/disks": "aws:eu-west-1/" + arn,
	} {
		n, err := parseName(in)
		if err != nil || n.holder(arn).String() != want {
			t.Errorf("%s: %s, %v, want %s", in, n.holder(arn), err, want)
		}
	}
	for _, in := range []string{
		"", "/", "eu-west-1", "eu-west-1/", "/key", "alias/disks", "eu-west-1.evil.example/k", "EU-WEST-1/k", "eu-west-1/k k",
		"eu-west-1@host/k", "eu/k", "eu-west-1/k?x", "eu-west-1/../k", strings.Repeat("x", 2000),
	} {
		if n, err := parseName(in); !errors.Is(err, keymgr.ErrInvalid) {
			t.Errorf("%q: %v, %v", in, n, err)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for endpoint, good := range map[string]bool{
		"": true, "https://kms.example": true, "https://10.1.2.3:8443": true, "http://127.0.0.1:5000": true, "http://[::1]:5000": true,
		"http://kms.example": false, "http://10.1.2.3": false, "http://localhost.example": false, "kms.example": false,
		"ftp://127.0.0.1": false, "https://": false, "://": false,
	} {
		k, err := Open(t.Context(), Config{Endpoint: endpoint})
		if good != (err == nil) {
			t.Errorf("%q: %v", endpoint, err)
		}
		if err != nil {
			kmstest.WantError(t, endpoint, err, keymgr.ErrInvalid, keymgr.CodeInvalid)
			continue
		}
		k.Close()
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"eu-west-1/alias/a", "eu-west-1/arn:aws:kms:eu-west-1:1:key/x", "a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseName(s)
		if err != nil {
			return
		}
		if n.String() != "aws:"+s || strings.ContainsAny(n.region, "./:@?#") {
			t.Fatalf("%q became %q in %q", s, n, n.region)
		}
	})
}
