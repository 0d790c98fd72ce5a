package aws

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"sealblk/keymgr/aws/awstest"
	"sealblk/keymgr/kmstest"
)

func testConformance(t *testing.T, s *awstest.Server) {
	kmstest.Run(t, func(t testing.TB) *kmstest.Subject {
		t.Cleanup(func() { s.Net.Mend(t) })
		c := configOf(s)
		if waits := t.Name(); strings.HasSuffix(waits, "/time-out") || strings.HasSuffix(waits, "/cancelled_during_the_call") {
			c.Timeout = 900 * time.Millisecond // the others have time, on a busy machine too
		}
		k, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		done := func(t testing.TB, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		id := func(key string) *string { id := key[len(awstest.Region)+1:]; return &id }
		return &kmstest.Subject{
			KMS: k, Scheme: Scheme, Timeout: c.Timeout,
			UnknownKey: in("00000000-0000-0000-0000-000000000000"),
			NewKey:     func(t testing.TB) string { return in(s.NewKey(t)) },
			Disable: func(t testing.TB, key string) {
				_, err := s.Admin.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: id(key)})
				done(t, err)
			},
			Enable: func(t testing.TB, key string) {
				_, err := s.Admin.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: id(key)})
				done(t, err)
			},
			Deny:     func(_ testing.TB, key string) { s.Deny(*id(key)) },
			Throttle: func(_ testing.TB, n int) { s.Throttle(n) },
			Break:    s.Net.Break, Hang: s.Net.Hang, Mend: s.Net.Mend,
			Rotate: func(t testing.TB, key string) {
				_, err := s.Admin.RotateKeyOnDemand(t.Context(), &kms.RotateKeyOnDemandInput{KeyId: id(key)})
				done(t, err)
			},
		}
	})
}
