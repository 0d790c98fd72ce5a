package aws

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"sealblk/keymgr"
	"sealblk/keymgr/aws/awstest"
	"sealblk/keymgr/kmstest"
	"sealblk/keymgr/secret"
	"sealblk/keymgr/wire"
)

// TestWithMoto runs all that needs a server on one.
func TestWithMoto(t *testing.T) {
	s := awstest.Start(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *awstest.Server)
	}{
		{"a data key is wrapped and unwrapped", testRoundTrip},
		{"the blob is what AWS itself opens", testBlobIsPlainAWS},
		{"an alias is resolved once", testAlias},
		{"another context does not open it", testContext},
		{"a damaged blob does not open", testDamage},
		{"rotation and re-wrap", testReEncrypt},
		{"a data key made elsewhere", testWrap},
		{"states", testStates},
		{"descriptions", testDescribe},
		{"throttling", testThrottling},
		{"connections", testConnections},
		{"the caller gives up", testCancelled},
		{"answers that are no answers", testWrongReplies},
		{"credentials", testCredentials},
		{"conformance", testConformance},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, s) })
	}
}

func testRoundTrip(t *testing.T, s *awstest.Server) {
	k, id := open(t, configOf(s)), s.NewKey(t)
	dk, w := kmstest.Generate(t, k, in(id))
	if err := keymgr.CheckDataKey(dk); err != nil {
		t.Error(err)
	}
	if w.URI != "aws:"+in(id) {
		t.Errorf("URI %s", w.URI)
	}
	kmstest.WantOpens(t, k, w, dk)
	other, _ := kmstest.Generate(t, k, in(id))
	if other.Equal(dk) {
		t.Error("two data keys are equal")
	}
	s.Calls()
	blind, err := k.GenerateDataKeyWithoutPlaintext(t.Context(), in(id), kmstest.Disk("1"))
	if err != nil {
		t.Fatal(err)
	}
	if calls := s.Calls(); !slices.Equal(calls, []string{"GenerateDataKeyWithoutPlaintext"}) {
		t.Errorf("calls %v: the plaintext may have come here", calls)
	}
	got, err := k.Decrypt(t.Context(), blind, kmstest.Disk("1"))
	if err != nil {
		t.Fatal(err)
	}
	got.Destroy()
}

func testBlobIsPlainAWS(t *testing.T, s *awstest.Server) {
	dk, w := kmstest.Generate(t, open(t, configOf(s)), in(s.NewKey(t)))
	out, err := s.Admin.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: w.Blob, EncryptionContext: kmstest.Disk("1")})
	if err != nil || string(out.Plaintext) != string(dk.Bytes()) {
		t.Errorf("the SDK alone: %v", err)
	}
}

func testAlias(t *testing.T, s *awstest.Server) {
	k, one, two := open(t, configOf(s)), s.NewKey(t), s.NewKey(t)
	point := func(id string) {
		_, err := s.Admin.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/disks"), TargetKeyId: &id})
		if err != nil {
			t.Fatal(err)
		}
	}
	point(one)
	dk, w := kmstest.Generate(t, k, in("alias/disks"))
	if w.URI != "aws:"+in(one) {
		t.Errorf("the wrapped key names %s", w.URI)
	}
	if _, err := s.Admin.DeleteAlias(t.Context(), &kms.DeleteAliasInput{AliasName: aws.String("alias/disks")}); err != nil {
		t.Fatal(err)
	}
	point(two)
	kmstest.WantOpens(t, k, w, dk)
	info, err := k.DescribeKey(t.Context(), in("alias/disks"))
	if err != nil || info.KeyID != two || info.URI != "aws:"+in(two) || !slices.Equal(info.Aliases, []string{"alias/disks"}) {
		t.Errorf("DescribeKey: %+v, %v", info, err)
	}
}

func testContext(t *testing.T, s *awstest.Server) {
	k := open(t, configOf(s))
	_, w := kmstest.Generate(t, k, in(s.NewKey(t)))
	for name, ec := range map[string]keymgr.Context{
		"another disk": kmstest.Disk("2"), "none": nil, "one entry more": {keymgr.ContextDisk: "1", "x": "y"},
	} {
		dk, err := k.Decrypt(t.Context(), w, ec)
		kmstest.WantError(t, "Decrypt for "+name, err, keymgr.ErrContextMismatch, "InvalidCiphertextException")
		if dk != nil {
			t.Errorf("Decrypt for %s returns a key", name)
		}
		_, err = k.ReEncrypt(t.Context(), w, ec, in(s.NewKey(t)))
		kmstest.WantError(t, "ReEncrypt for "+name, err, keymgr.ErrContextMismatch, "InvalidCiphertextException")
	}
}

func testDamage(t *testing.T, s *awstest.Server) {
	k, id := open(t, configOf(s)), s.NewKey(t)
	_, w := kmstest.Generate(t, k, in(id))
	for _, i := range []int{len(w.Blob) - 1, len(w.Blob) / 2} {
		bad := w
		bad.Blob = slices.Clone(w.Blob)
		bad.Blob[i] ^= 1
		_, err := k.Decrypt(t.Context(), bad, kmstest.Disk("1"))
		kmstest.WantError(t, "a flipped bit", err, keymgr.ErrCorrupt, "InvalidCiphertextException")
	}
	moved := w
	moved.URI = "aws:" + in(s.NewKey(t))
	if dk, err := k.Decrypt(t.Context(), moved, kmstest.Disk("1")); dk != nil || !errors.Is(err, keymgr.ErrCorrupt) {
		t.Errorf("a blob under the name of another key: %v", err)
	}
	for name, w := range map[string]keymgr.WrappedKey{
		"no blob": {URI: w.URI}, "a blob without end": {URI: w.URI, Blob: make([]byte, maxBlob+1)},
	} {
		if _, err := k.Decrypt(t.Context(), w, kmstest.Disk("1")); !errors.Is(err, keymgr.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testReEncrypt(t *testing.T, s *awstest.Server) {
	k, one, two := open(t, configOf(s)), s.NewKey(t), s.NewKey(t)
	dk, w := kmstest.Generate(t, k, in(one))
	if _, err := s.Admin.RotateKeyOnDemand(t.Context(), &kms.RotateKeyOnDemandInput{KeyId: &one}); err != nil {
		t.Fatal(err)
	}
	kmstest.WantOpens(t, k, w, dk) // the old material still opens it
	for _, to := range []string{one, two} {
		s.Calls()
		out, err := k.ReEncrypt(t.Context(), w, kmstest.Disk("1"), in(to))
		if err != nil {
			t.Fatal(err)
		}
		if calls := s.Calls(); !slices.Equal(calls, []string{"ReEncrypt"}) {
			t.Errorf("calls %v: the plaintext may have come here", calls)
		}
		if out.URI != "aws:"+in(to) || string(out.Blob) == string(w.Blob) {
			t.Errorf("re-wrapped under %s", out.URI)
		}
		kmstest.WantOpens(t, k, out, dk)
	}
	_, err := k.ReEncrypt(t.Context(), w, kmstest.Disk("1"), "us-east-1/"+two)
	kmstest.WantError(t, "ReEncrypt to another region", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
}

func testWrap(t *testing.T, s *awstest.Server) {
	k, id := open(t, configOf(s)), s.NewKey(t)
	dk, err := secret.Random(keymgr.DataKeySize)
	if err != nil {
		t.Fatal(err)
	}
	defer dk.Destroy()
	w, err := k.Wrap(t.Context(), in(id), dk, kmstest.Disk("1"))
	if err != nil || w.URI != "aws:"+in(id) {
		t.Fatalf("Wrap: %+v, %v", w, err)
	}
	kmstest.WantOpens(t, k, w, dk)
	_, err = k.Decrypt(t.Context(), w, kmstest.Disk("2"))
	kmstest.WantError(t, "Decrypt for another disk", err, keymgr.ErrContextMismatch, "InvalidCiphertextException")
	weak, err := secret.New(keymgr.DataKeySize)
	if err != nil {
		t.Fatal(err)
	}
	defer weak.Destroy()
	if _, err := k.Wrap(t.Context(), in(id), weak, kmstest.Disk("1")); !errors.Is(err, keymgr.ErrWeakKey) {
		t.Errorf("Wrap of equal halves: %v", err)
	}
}

func testDescribe(t *testing.T, s *awstest.Server) {
	k, id := open(t, configOf(s)), s.NewKey(t)
	info, err := k.DescribeKey(t.Context(), in(id))
	if err != nil || info.KeyID != id || info.State != keymgr.Enabled || info.Origin != "AWS_KMS" ||
		info.Region != awstest.Region || info.Description != "for a test" || time.Since(info.Created) > time.Hour {
		t.Errorf("DescribeKey: %+v, %v", info, err)
	}
	for _, none := range []string{"alias/none", "00000000-0000-0000-0000-000000000000"} {
		_, err := k.DescribeKey(t.Context(), in(none))
		kmstest.WantError(t, "DescribeKey "+none, err, keymgr.ErrNotFound, "NotFoundException")
	}
	_, _, err = k.GenerateDataKey(t.Context(), in("alias/none"), kmstest.Disk("1"))
	kmstest.WantError(t, "GenerateDataKey under no key", err, keymgr.ErrNotFound, "NotFoundException")
}

// set is the KMS as the disk service uses it, without waiting.
func set(t *testing.T, c Config) (*keymgr.Set, *[]time.Duration) {
	t.Helper()
	waits := new([]time.Duration)
	retry := keymgr.DefaultRetry
	retry.Sleep = func(ctx context.Context, d time.Duration) error {
		*waits = append(*waits, d)
		return ctx.Err()
	}
	s := keymgr.NewSet(retry, map[string]keymgr.Opener{
		Scheme: func(ctx context.Context) (keymgr.KMS, error) { return Open(ctx, c) },
	})
	t.Cleanup(func() { s.Close() })
	return s, waits
}

func testThrottling(t *testing.T, s *awstest.Server) {
	k, id := open(t, configOf(s)), s.NewKey(t)
	dk, w := kmstest.Generate(t, k, in(id))
	for _, a := range []awstest.Answer{
		{Status: 400, Code: "ThrottlingException", Message: "Rate exceeded"}, {Status: 400, Code: "LimitExceededException"}, {Status: 429, Code: "Whatever"},
	} {
		s.Calls()
		s.Fail(1, a)
		_, err := k.Decrypt(t.Context(), w, kmstest.Disk("1"))
		kmstest.WantError(t, a.Code, err, keymgr.ErrThrottled, a.Code)
		if calls := s.Calls(); len(calls) != 1 {
			t.Errorf("%s: %d calls: the SDK retries by itself", a.Code, len(calls))
		}
	}
	all, waits := set(t, configOf(s))
	s.Throttle(3)
	got, err := all.Decrypt(t.Context(), w, kmstest.Disk("1"))
	if err != nil || !got.Equal(dk) || len(*waits) != 3 {
		t.Errorf("after three refusals: %v, %d waits", err, len(*waits))
	}
	got.Destroy()
}

func testConnections(t *testing.T, s *awstest.Server) {
	c := configOf(s)
	c.Timeout = 2 * time.Second
	k, id := open(t, c), s.NewKey(t)
	dk, w := kmstest.Generate(t, k, in(id))
	defer s.Net.Mend(t)
	for name, lose := range map[string]func(testing.TB){"broken": s.Net.Break, "silent": s.Net.Hang} {
		lose(t)
		begin := time.Now()
		_, err := k.Decrypt(t.Context(), w, kmstest.Disk("1"))
		kmstest.WantError(t, name, err, keymgr.ErrUnreachable, wire.CodeUnreachable)
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("%s: it took %v to say so", name, d)
		}
		s.Net.Mend(t)
		kmstest.WantOpens(t, k, w, dk)
	}
	s.Net.Break(t) // the connection that is kept
	s.Net.Mend(t)
	all, _ := set(t, c)
	got, err := all.Decrypt(t.Context(), w, kmstest.Disk("1"))
	if err != nil {
		t.Errorf("after the connection was reset: %v", err)
	}
	got.Destroy()
	s.Fail(1, awstest.Answer{Status: http.StatusServiceUnavailable, Body: "<html>try later</html>"})
	_, err = k.Decrypt(t.Context(), w, kmstest.Disk("1"))
	kmstest.WantError(t, "503", err, keymgr.ErrUnreachable, "")
}

func testCancelled(t *testing.T, s *awstest.Server) {
	k := open(t, configOf(s))
	_, w := kmstest.Generate(t, k, in(s.NewKey(t)))
	kmstest.WantDeadline(t, k, w, s.Net)
}

func testWrongReplies(t *testing.T, s *awstest.Server) {
	k, id := open(t, configOf(s)), s.NewKey(t)
	_, w := kmstest.Generate(t, k, in(id))
	sample := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("Sesame, ", 9)))
	weak := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", keymgr.DataKeySize)))
	for name, c := range map[string]struct {
		body string
		want error
	}{
		"halves that are equal": {`{"KeyId":"k","Plaintext":"` + weak + `"}`, keymgr.ErrWeakKey},
		"a longer key":          {`{"KeyId":"k","Plaintext":"` + sample + `"}`, keymgr.ErrCorrupt},
		"no key":                {`{"KeyId":"k"}`, keymgr.ErrCorrupt},
		"not base64":            {`{"Plaintext":"` + strings.Repeat("!", 88) + `"}`, keymgr.ErrCorrupt},
		"cut":                   {`{"Plaintext":"` + sample, keymgr.ErrCorrupt},
		"without end":           {`{"Plaintext":"` + strings.Repeat("A", wire.MaxReply), keymgr.ErrCorrupt},
		"not JSON":              {"hello", keymgr.ErrUnreachable},
		"another key's":         {`{"KeyId":"arn:aws:kms:eu-west-1:1:key/other","Plaintext":"` + weak[:43] + "B" + weak[44:] + `"}`, keymgr.ErrCorrupt},
	} {
		s.Fail(1, awstest.Answer{Status: http.StatusOK, Body: c.body})
		dk, err := k.Decrypt(t.Context(), w, kmstest.Disk("1"))
		if dk != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), sample[:20]) || strings.Contains(err.Error(), weak[:20])) {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}
