package local

import (
	"errors"
	"testing"
	"time"

	"sealblk/keymgr"
)

func entries(t *testing.T, k *KMS) (n uint64) {
	t.Helper()
	n, err := k.VerifyAudit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestUsableIsWhatDecryptSays, in every state, with and without permission; and nobody
// reads of it in the log.
func TestUsableIsWhatDecryptSays(t *testing.T) {
	for _, state := range states {
		k := newKMS(t)
		id := newKey(t, k)
		_, w := generate(t, k, id)
		setState(t, k, id, state)
		for _, principal := range []string{DiskService, "stranger"} {
			user := k.As(principal)
			before := entries(t, k)
			usable := user.Usable(t.Context(), id, "")
			if now := entries(t, k); now != before {
				t.Errorf("%s: a look at the key made %d records", state, now-before)
			}
			dk, err := user.Decrypt(t.Context(), w, disk("1"))
			dk.Destroy()
			if (usable == nil) != (err == nil) || err != nil && (usable.Error() != err.Error() || !keymgr.IsLoss(usable)) {
				t.Errorf("%s for %s: usable says %v, decrypt %v", state, principal, usable, err)
			}
		}
	}
	if err := newKMS(t).Usable(t.Context(), newID(), ""); !errors.Is(err, keymgr.ErrNotFound) {
		t.Errorf("a key that never was: %v", err)
	}
}

// TestStamp changes with each change of a key and not by looking.
func TestStamp(t *testing.T) {
	k := newKMS(t)
	id := newKey(t, k)
	user := k.As(DiskService)
	was := user.Stamp(id)
	for range 3 {
		if err := user.Usable(t.Context(), id, ""); err != nil || user.Stamp(id) != was || was == "" {
			t.Fatalf("looking changes something: %v, %q then %q", err, was, user.Stamp(id))
		}
	}
	for name, change := range map[string]func() error{
		"disable": func() error { return k.DisableKey(t.Context(), id) },
		"enable":  func() error { return k.EnableKey(t.Context(), id) },
		"revoke":  func() error { return k.Revoke(t.Context(), id, DiskService) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		now := user.Stamp(id)
		if now == was {
			t.Errorf("%s does not change the stamp", name)
		}
		was = now
	}
}

// TestUsableDoesWhatIsDue: material that expired is forgotten by a look, which is recorded
// once, in the name of the KMS.
func TestUsableDoesWhatIsDue(t *testing.T) {
	now := noon
	k, err := Open(newFolder(t), Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	info, err := k.CreateKey(t.Context(), CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	id := info.KeyID
	if err := k.Authorize(t.Context(), id, DiskService, []Permission{Generate, Decrypt}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.ScheduleKeyDeletion(t.Context(), id, 7, false); err != nil {
		t.Fatal(err)
	}
	user := k.As(DiskService)
	if err := user.Usable(t.Context(), id, ""); !errors.Is(err, keymgr.ErrPendingDeletion) {
		t.Error(err)
	}
	before := entries(t, k)
	now = now.AddDate(0, 0, 8)
	for range 2 {
		if err := user.Usable(t.Context(), id, ""); !errors.Is(err, keymgr.ErrNotFound) {
			t.Error(err)
		}
	}
	if n := entries(t, k) - before; n != 1 {
		t.Errorf("%d records, want one of the destruction", n)
	}
}
