package kmip

import (
	"strings"
	"testing"
	"time"

	"sealblk/keymgr/kmip/kmiptest"
	"sealblk/keymgr/kmstest"
)

func testConformance(t *testing.T, s *kmiptest.Server, mode string) {
	kmstest.Run(t, func(t testing.TB) *kmstest.Subject {
		t.Cleanup(func() { s.Net.Mend(t) })
		c := configOf(s, mode)
		if waits := t.Name(); strings.HasSuffix(waits, "/time-out") || strings.HasSuffix(waits, "/cancelled_during_the_call") {
			c.Timeout = 900 * time.Millisecond // the others have time, on a busy machine too
		}
		k, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		return &kmstest.Subject{
			KMS: k, Scheme: Scheme, Timeout: c.Timeout, UnknownKey: "999999",
			NewKey:  func(t testing.TB) string { return s.Activate(t, s.NewKey(t, "")) },
			Disable: func(t testing.TB, key string) { s.Revoke(t, key) },
			Break:   s.Net.Break, Hang: s.Net.Hang, Mend: s.Net.Mend,
			Lacks: map[kmstest.Capability]string{
				kmstest.Enabling:   "KMIP has no way back from a revocation",
				kmstest.Rotating:   "in KMIP another version is another object, and this server has no Re-key",
				kmstest.Denying:    "this server cannot take a key from who made it; TestWithPyKMIP/certificates has another client",
				kmstest.Throttling: "KMIP 1.x has no word for it",
			},
		}
	})
}
