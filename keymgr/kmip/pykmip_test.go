package kmip

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmip/kmiptest"
	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/wire"
)

// TestWithPyKMIP runs all that needs a server on one, in both modes.
func TestWithPyKMIP(t *testing.T) {
	s := kmiptest.Start(t)
	for _, mode := range []string{ModeEncrypt, ModeGet} {
		for _, c := range []struct {
			name string
			test func(*testing.T, *kmiptest.Server, string)
		}{
			{"a data key is wrapped and unwrapped", testRoundTrip},
			{"another context does not open it", testContext},
			{"a forged blob does not open", testForged},
			{"names and replacements", testNames},
			{"re-wrap", testReEncrypt},
			{"states", testStates},
			{"connections", testConnections},
			{"the caller gives up", testCancelled},
			{"conformance", testConformance},
		} {
			t.Run(mode+": "+c.name, func(t *testing.T) { c.test(t, s, mode) })
		}
	}
	t.Run("modes agree", func(t *testing.T) { testModesAgree(t, s) })
	t.Run("certificates", func(t *testing.T) { testCertificates(t, s) })
}

func testRoundTrip(t *testing.T, s *kmiptest.Server, mode string) {
	k, uid := open(t, configOf(s, mode)), s.Activate(t, s.NewKey(t, ""))
	dk, w := kmstest.Generate(t, k, uid)
	if w.URI != "kmip:"+uid || w.Version != uid || len(w.Blob) != blobSize || bytes.Contains(w.Blob, dk.Bytes()[:8]) {
		t.Errorf("wrapped %+v", w)
	}
	kmstest.WantOpens(t, k, w, dk)
	other, _ := kmstest.Generate(t, k, uid)
	if other.Equal(dk) {
		t.Error("two data keys are equal")
	}
	blind, err := k.GenerateDataKeyWithoutPlaintext(t.Context(), uid, kmstest.Disk("1"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.Decrypt(t.Context(), blind, kmstest.Disk("1"))
	if err != nil {
		t.Fatal(err)
	}
	got.Destroy()
	made := random(t, keymgr.DataKeySize)
	w, err = k.Wrap(t.Context(), uid, made, kmstest.Disk("1"))
	if err != nil {
		t.Fatal(err)
	}
	kmstest.WantOpens(t, k, w, made)
	info, err := k.DescribeKey(t.Context(), uid)
	if err != nil || info.KeyID != uid || info.State != keymgr.Enabled || info.PrimaryVersion != uid || time.Since(info.Created).Abs() > time.Hour {
		t.Errorf("DescribeKey: %+v, %v", info, err)
	}
}

func testContext(t *testing.T, s *kmiptest.Server, mode string) {
	k, uid := open(t, configOf(s, mode)), s.Activate(t, s.NewKey(t, ""))
	_, w := kmstest.Generate(t, k, uid)
	for _, ec := range []keymgr.Context{kmstest.Disk("2"), nil} {
		dk, err := k.Decrypt(t.Context(), w, ec)
		kmstest.WantError(t, "Decrypt", err, keymgr.ErrContextMismatch, CodeContext)
		if dk != nil {
			t.Error("Decrypt returns a key")
		}
		_, err = k.ReEncrypt(t.Context(), w, ec, uid)
		kmstest.WantError(t, "ReEncrypt", err, keymgr.ErrContextMismatch, CodeContext)
	}
}

// testForged: a blob whose digest and checksum were made to fit another disk is for the
// tag to refuse, here or on the server.
func testForged(t *testing.T, s *kmiptest.Server, mode string) {
	k, uid := open(t, configOf(s, mode)), s.Activate(t, s.NewKey(t, ""))
	_, w := kmstest.Generate(t, k, uid)
	one, two := mustBind(t, kmstest.Disk("1")), mustBind(t, kmstest.Disk("2"))
	p, err := parseBlob("k", w.Blob, one)
	if err != nil {
		t.Fatal(err)
	}
	w.Blob = p.encode(two)
	dk, err := k.Decrypt(t.Context(), w, kmstest.Disk("2"))
	kmstest.WantError(t, "Decrypt", err, keymgr.ErrCorrupt, "")
	if dk != nil {
		t.Error("Decrypt returns a key")
	}
}

func testModesAgree(t *testing.T, s *kmiptest.Server) {
	uid := s.Activate(t, s.NewKey(t, ""))
	for _, from := range []string{ModeEncrypt, ModeGet, ModeAuto} {
		dk, w := kmstest.Generate(t, open(t, configOf(s, from)), uid)
		for _, to := range []string{ModeEncrypt, ModeGet, ""} {
			kmstest.WantOpens(t, open(t, configOf(s, to)), w, dk)
		}
	}
	k := open(t, configOf(s, ModeAuto))
	_, _ = kmstest.Generate(t, k, uid)
	if !k.current.encrypts {
		t.Error("auto does not use what the server can")
	}
}

func testNames(t *testing.T, s *kmiptest.Server, mode string) {
	k, name := open(t, configOf(s, mode)), "disks of "+mode
	old := s.Activate(t, s.NewKey(t, name))
	dk, w := kmstest.Generate(t, k, name)
	if w.URI != "kmip:"+old {
		t.Errorf("the wrapped key names %s", w.URI)
	}
	next := s.NewKey(t, name) // not active: nothing changes
	if _, w := kmstest.Generate(t, k, name); w.URI != "kmip:"+old {
		t.Errorf("wrapped under %s, not under the active key", w.URI)
	}
	s.Activate(t, next)
	_, _, err := k.GenerateDataKey(t.Context(), name, kmstest.Disk("1"))
	kmstest.WantError(t, "two active keys of one name", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	kmstest.WantOpens(t, k, w, dk)
	s.Revoke(t, old)
	if _, w := kmstest.Generate(t, k, name); w.URI != "kmip:"+next {
		t.Errorf("wrapped under %s, not under what took its place", w.URI)
	}
	info, err := k.DescribeKey(t.Context(), name)
	if err != nil || info.KeyID != next || !slices.Contains(info.Aliases, name) {
		t.Errorf("DescribeKey: %+v, %v", info, err)
	}
}

func testReEncrypt(t *testing.T, s *kmiptest.Server, mode string) {
	k := open(t, configOf(s, mode))
	one, two := s.Activate(t, s.NewKey(t, "")), s.Activate(t, s.NewKey(t, ""))
	dk, w := kmstest.Generate(t, k, one)
	for _, to := range []string{one, two} {
		out, err := k.ReEncrypt(t.Context(), w, kmstest.Disk("1"), to)
		if err != nil {
			t.Fatal(err)
		}
		if out.URI != "kmip:"+to || bytes.Equal(out.Blob, w.Blob) {
			t.Errorf("re-wrapped under %s", out.URI)
		}
		kmstest.WantOpens(t, k, out, dk)
	}
	_, err := k.ReEncrypt(t.Context(), w, kmstest.Disk("1"), "none")
	kmstest.WantError(t, "ReEncrypt to no key", err, keymgr.ErrNotFound, CodeNotFound)
}

func testStates(t *testing.T, s *kmiptest.Server, mode string) {
	k, uid := open(t, configOf(s, mode)), s.NewKey(t, "")
	ctx := t.Context()
	var w keymgr.WrappedKey
	refused := func(what string, sentinel error, code string) {
		t.Helper()
		_, _, err := k.GenerateDataKey(ctx, uid, kmstest.Disk("1"))
		kmstest.WantError(t, "GenerateDataKey, "+what, err, sentinel, code)
		_, err = k.GenerateDataKeyWithoutPlaintext(ctx, uid, kmstest.Disk("1"))
		kmstest.WantError(t, "GenerateDataKeyWithoutPlaintext, "+what, err, sentinel, code)
		if w.Blob == nil {
			return
		}
		_, err = k.Decrypt(ctx, w, kmstest.Disk("1"))
		kmstest.WantError(t, "Decrypt, "+what, err, sentinel, code)
		_, err = k.ReEncrypt(ctx, w, kmstest.Disk("1"), uid)
		kmstest.WantError(t, "ReEncrypt, "+what, err, sentinel, code)
	}
	refused("not active yet", keymgr.ErrDisabled, CodeState)
	s.Activate(t, uid)
	_, w = kmstest.Generate(t, k, uid)
	s.Revoke(t, uid)
	refused("revoked", keymgr.ErrDisabled, CodeState)
	if info, err := k.DescribeKey(ctx, uid); err != nil || info.State != keymgr.Disabled {
		t.Errorf("DescribeKey: %+v, %v", info, err)
	}
	s.Destroy(t, uid)
	refused("destroyed", keymgr.ErrNotFound, CodeNotFound)
	_, err := k.DescribeKey(ctx, uid)
	kmstest.WantError(t, "DescribeKey, destroyed", err, keymgr.ErrNotFound, CodeNotFound)
}

func testConnections(t *testing.T, s *kmiptest.Server, mode string) {
	c := configOf(s, mode)
	k, uid := open(t, c), s.Activate(t, s.NewKey(t, ""))
	dk, w := kmstest.Generate(t, k, uid)
	c.Timeout = 500 * time.Millisecond
	hasty := open(t, c)
	defer s.Net.Mend(t)
	for name, lose := range map[string]func(testing.TB){"broken": s.Net.Break, "silent": s.Net.Hang} {
		lose(t)
		begin := time.Now()
		_, err := hasty.Decrypt(t.Context(), w, kmstest.Disk("1"))
		kmstest.WantError(t, name, err, keymgr.ErrUnreachable, wire.CodeUnreachable)
		_, _, err = hasty.GenerateDataKey(t.Context(), uid, kmstest.Disk("1"))
		kmstest.WantError(t, name, err, keymgr.ErrUnreachable, wire.CodeUnreachable)
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("%s: it took %v to say so", name, d)
		}
		s.Net.Mend(t)
	}
	set := keymgr.NewSet(keymgr.DefaultRetry, map[string]keymgr.Opener{
		Scheme: func(context.Context) (keymgr.KMS, error) { return k, nil },
	})
	for range 2 { // the connection that k kept is gone both times
		s.Net.Break(t)
		s.Net.Mend(t)
		got, err := set.Decrypt(t.Context(), w, kmstest.Disk("1"))
		if err != nil {
			t.Fatalf("after the connection was reset: %v", err)
		}
		if !got.Equal(dk) {
			t.Error("another data key")
		}
		got.Destroy()
	}
}

func testCancelled(t *testing.T, s *kmiptest.Server, mode string) {
	k, uid := open(t, configOf(s, mode)), s.Activate(t, s.NewKey(t, ""))
	_, w := kmstest.Generate(t, k, uid)
	kmstest.WantDeadline(t, k, w, s.Net)
}

func testCertificates(t *testing.T, s *kmiptest.Server) {
	uid := s.Activate(t, s.NewKey(t, ""))
	good := configOf(s, ModeAuto)
	describe := func(c Config) error {
		t.Helper()
		_, err := open(t, c).DescribeKey(t.Context(), uid)
		return err
	}
	stranger := good
	stranger.CA = s.Certificate
	kmstest.WantError(t, "a server that nobody vouches for", describe(stranger), keymgr.ErrUnreachable, wire.CodeUnreachable)
	renamed := good
	renamed.ServerName = "kms.example"
	kmstest.WantError(t, "a server of another name", describe(renamed), keymgr.ErrUnreachable, wire.CodeUnreachable)

	other := good // a client that the server knows, but not the key's owner
	dir := filepath.Dir(s.Certificate)
	other.Certificate, other.Key = filepath.Join(dir, "other.pem"), filepath.Join(dir, "other.key")
	kmstest.WantError(t, "a client that does not own the key", describe(other), keymgr.ErrAccessDenied, "PermissionDenied")

	unknown := good // vouched for by nobody
	dir = kmiptest.Certificates(t)
	unknown.Certificate, unknown.Key = filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	kmstest.WantError(t, "a client that nobody vouches for", describe(unknown), keymgr.ErrAccessDenied, CodeCertificate)
}

func TestConfig(t *testing.T) {
	dir := kmiptest.Certificates(t)
	good := Config{Address: "kms.example", Certificate: filepath.Join(dir, "client.pem"), Key: filepath.Join(dir, "client.key"), CA: filepath.Join(dir, "ca.pem")}
	c, err := good.complete()
	if err != nil || c.Address != "kms.example:5696" || c.ServerName != "kms.example" || c.Mode != ModeAuto || c.Timeout != DefaultTimeout {
		t.Errorf("complete: %+v, %v", c, err)
	}
	for name, spoil := range map[string]func(*Config){
		"no address":            func(c *Config) { c.Address = "" },
		"no certificate":        func(c *Config) { c.Certificate = "" },
		"certificate is no one": func(c *Config) { c.Certificate = c.Key },
		"key is none":           func(c *Config) { c.Key = c.Certificate },
		"missing key":           func(c *Config) { c.Key = dir + "/none" },
		"missing CA":            func(c *Config) { c.CA = dir + "/none" },
		"CA is none":            func(c *Config) { c.CA = c.Key },
		"mode":                  func(c *Config) { c.Mode = "wrap" },
	} {
		c := good
		spoil(&c)
		_, err := Open(t.Context(), c)
		kmstest.WantError(t, name, err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	}
	if err := os.Chmod(good.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), good); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a private key for all to read: %v", err)
	}
}
