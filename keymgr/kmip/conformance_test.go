package kmip

import (
	"testing"
	"time"

	"sealblk/keymgr/kmip/kmiptest"
	"sealblk/keymgr/kmstest"
)

// Time-outs: short is waited for, patience is for calls that end.
const short, patience = 900 * time.Millisecond, 20 * time.Second

func testConformance(t *testing.T, s *kmiptest.Server, mode string) {
	kmstest.Run(t, func(t testing.TB) *kmstest.Subject {
		t.Cleanup(func() { s.Net.Mend(t) })
		c := configOf(s, mode)
		c.Timeout = patience
		k, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		return &kmstest.Subject{
			KMS: k, Scheme: Scheme, Timeout: short, UnknownKey: "999999",
			NewKey:  func(t testing.TB) string { return s.Activate(t, s.NewKey(t, "")) },
			Disable: func(t testing.TB, key string) { s.Revoke(t, key) },
			// Nobody waits for a network that hangs; a busy machine may take its time otherwise.
			Hang:  func(t testing.TB) { k.config.Timeout = short; s.Net.Hang(t) },
			Mend:  func(t testing.TB) { k.config.Timeout = patience; s.Net.Mend(t) },
			Break: s.Net.Break,
			Lacks: map[kmstest.Capability]string{
				kmstest.Enabling:   "KMIP has no way back from a revocation",
				kmstest.Rotating:   "in KMIP another version is another object, and this server has no Re-key",
				kmstest.Denying:    "this server cannot take a key from who made it; TestWithPyKMIP/certificates has another client",
				kmstest.Throttling: "KMIP 1.x has no word for it",
			},
		}
	})
}
