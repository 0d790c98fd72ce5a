package local

import (
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
)

func TestConformance(t *testing.T) {
	const sameProcess = "the embedded KMS is in the same process: there is no connection and no limit of calls"
	kmstest.Run(t, func(t testing.TB) *kmstest.Subject {
		k := newKMS(t)
		return &kmstest.Subject{
			KMS: k.As(DiskService), Scheme: keymgr.SchemeLocal, UnknownKey: newID(),
			NewKey:  func(t testing.TB) string { return newKey(t, k) },
			Disable: func(t testing.TB, key string) { done(t, k.DisableKey(t.Context(), key)) },
			Enable:  func(t testing.TB, key string) { done(t, k.EnableKey(t.Context(), key)) },
			Deny:    func(t testing.TB, key string) { done(t, k.Revoke(t.Context(), key, DiskService)) },
			Rotate: func(t testing.TB, key string) {
				_, err := k.RotateKey(t.Context(), key)
				done(t, err)
			},
			Lacks: map[kmstest.Capability]string{
				kmstest.Throttling: sameProcess, kmstest.Breaking: sameProcess, kmstest.Hanging: sameProcess,
			},
		}
	})
}

func done(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
