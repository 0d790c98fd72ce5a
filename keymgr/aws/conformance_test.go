package aws

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"sealblk/keymgr/aws/awstest"
	"sealblk/keymgr/kmstest"
)

// Time-outs: short is waited for, patience is for calls that end.
const short, patience = 900 * time.Millisecond, 20 * time.Second

func testConformance(t *testing.T, s *awstest.Server) {
	kmstest.Run(t, func(t testing.TB) *kmstest.Subject {
		t.Cleanup(func() { s.Net.Mend(t) })
		c := configOf(s)
		c.Timeout = patience
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
			KMS: k, Scheme: Scheme, Timeout: short,
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
			// Nobody waits for a network that hangs; a busy machine may take its time otherwise.
			Hang:  func(t testing.TB) { k.config.Timeout = short; s.Net.Hang(t) },
			Mend:  func(t testing.TB) { k.config.Timeout = patience; s.Net.Mend(t) },
			Break: s.Net.Break,
			Rotate: func(t testing.TB, key string) {
				_, err := s.Admin.RotateKeyOnDemand(t.Context(), &kms.RotateKeyOnDemandInput{KeyId: id(key)})
				done(t, err)
			},
		}
	})
}
