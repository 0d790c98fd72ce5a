package disk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/crypt"
	"sealblk/blockdev/luks"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

// withKey makes a disk under a CMK of its own, and returns the KMS as its operator.
func withKey(t *testing.T, c *Catalogue, o CreateOptions) (*local.KMS, Record) {
	t.Helper()
	k, err := local.Open(filepath.Join(c.Dir(), "kms"), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	o.Key = aCMK(t, k)
	return k, mustCreate(t, c, o)
}

func aCMK(t *testing.T, k *local.KMS) (uri string) {
	t.Helper()
	info, err := k.CreateKey(t.Context(), local.CreateOptions{})
	if err == nil {
		err = k.Authorize(t.Context(), info.KeyID, local.DiskService, []local.Permission{local.Generate, local.Decrypt, local.ReEncrypt})
	}
	if err != nil {
		t.Fatal(err)
	}
	return info.URI
}

func onQueue(t *testing.T, d *Disk, f func(*blockdevtest.Driver)) {
	t.Helper()
	q, err := d.Device.OpenQueue(blockdev.QueueConfig{Depth: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	f(blockdevtest.NewDriver(t, q, 4))
}

func flush(q *blockdevtest.Driver) error { return q.Do(&blockdev.Request{Op: blockdev.Flush}) }

// TestLockAndUnlock: a locked disk has no key in memory and fails all requests; it comes
// back when its CMK is there, and not before.
func TestLockAndUnlock(t *testing.T) {
	for _, backend := range []string{"", "memory:"} {
		c := newCatalogue(t)
		k, r := withKey(t, c, CreateOptions{Name: "db", Backend: backend, OnKeyLoss: KeyLossPause})
		d, err := c.Open(t.Context(), "db", OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		want := blockdevtest.Noise(3, 32<<10)
		onQueue(t, d, func(q *blockdevtest.Driver) { q.Write(0, want) })
		before, _ := secret.Live()

		if err := k.DisableKey(t.Context(), r.KeyID); err != nil {
			t.Fatal(err)
		}
		d.Lock()
		d.Lock()
		if after, _ := secret.Live(); after != before-1 {
			t.Errorf("%d secrets before, %d after the disk was locked", before, after)
		}
		for range 2 {
			if err := d.Unlock(t.Context()); !errors.Is(err, keymgr.ErrDisabled) || !strings.Contains(err.Error(), "disk db") {
				t.Fatalf("unlocked under a disabled CMK: %v", err)
			}
			onQueue(t, d, func(q *blockdevtest.Driver) {
				if err := flush(q); !errors.Is(err, crypt.ErrLocked) {
					t.Errorf("a locked disk answers %v", err)
				}
			})
		}
		if after, _ := secret.Live(); after != before-1 {
			t.Error("a failed unlock leaves secrets")
		}
		if err := k.EnableKey(t.Context(), r.KeyID); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := d.Unlock(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		onQueue(t, d, func(q *blockdevtest.Driver) {
			if got := q.Read(0, int64(len(want))); !bytes.Equal(got, want) {
				t.Error("reads something else after lock and unlock")
			}
		})
	}
}

// TestUnlockUnderAnotherKey: a disk that was wrapped anew while it was locked is unlocked
// by what its header says now.
func TestUnlockUnderAnotherKey(t *testing.T) {
	c := newCatalogue(t)
	k, r := withKey(t, c, CreateOptions{Name: "db"})
	d, err := c.Open(t.Context(), "db", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.Lock()
	other := aCMK(t, k)
	reheader(t, c, r, func(token *luks.Token) {
		was := keymgr.WrappedKey{URI: token.KeyURI, Version: token.KeyVersion, Blob: token.WrappedKey}
		now, err := k.As(local.DiskService).ReEncrypt(t.Context(), was, token.Context, strings.TrimPrefix(other, "local:"))
		if err != nil {
			t.Fatal(err)
		}
		token.KeyURI, token.KeyVersion, token.WrappedKey = now.URI, now.Version, now.Blob
	})
	if err := k.DisableKey(t.Context(), r.KeyID); err != nil {
		t.Fatal(err)
	}
	if err := d.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestUnlockOfAnotherDisk: the container of another disk, put in the place of a locked
// one, is refused.
func TestUnlockOfAnotherDisk(t *testing.T) {
	c := newCatalogue(t)
	_, r := withKey(t, c, CreateOptions{Name: "db"})
	d, err := c.Open(t.Context(), "db", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.Lock()
	stolen := mustCreate(t, c, CreateOptions{Name: "stolen", Encrypted: true})
	h, err := c.readHeader(stolen)
	if err != nil {
		t.Fatal(err)
	}
	token, err := h.Token()
	if err != nil {
		t.Fatal(err)
	}
	reheader(t, c, r, func(mine *luks.Token) { *mine = token })
	if err := d.Unlock(t.Context()); !errors.Is(err, ErrMismatch) {
		t.Fatalf("unlocked with another disk's key: %v", err)
	}
}

// TestPlainDiskHasNoLock: what has no key cannot lose it.
func TestPlainDiskHasNoLock(t *testing.T) {
	c := newCatalogue(t)
	mustCreate(t, c, CreateOptions{Name: "db"})
	d, err := c.Open(t.Context(), "db", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.Lock()
	onQueue(t, d, func(q *blockdevtest.Driver) {
		if err := flush(q); err != nil {
			t.Errorf("a plain disk was locked: %v", err)
		}
	})
	if err := d.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestKeyLossPolicy is kept in the record, for encrypted disks.
func TestKeyLossPolicy(t *testing.T) {
	c := newCatalogue(t)
	if r := mustCreate(t, c, CreateOptions{Name: "db", Encrypted: true}); r.OnKeyLoss != KeyLossKeep {
		t.Errorf("the default is %q", r.OnKeyLoss)
	}
	if r := mustCreate(t, c, CreateOptions{Name: "strict", Encrypted: true, OnKeyLoss: KeyLossDetach}); r.OnKeyLoss != KeyLossDetach {
		t.Errorf("got %q", r.OnKeyLoss)
	}
	if r, running, err := c.Set(t.Context(), "db", Settings{OnKeyLoss: KeyLossPause}); err != nil || running || r.OnKeyLoss != KeyLossPause || r.Discard != DiscardUnmap {
		t.Errorf("%+v, %v, %v", r, running, err)
	}
	if r, err := c.Get("db"); err != nil || r.OnKeyLoss != KeyLossPause {
		t.Errorf("%+v, %v", r, err)
	}
	mustCreate(t, c, CreateOptions{Name: "plain"})
	for _, policy := range []KeyLossPolicy{KeyLossPause, KeyLossDetach} {
		if _, _, err := c.Set(t.Context(), "plain", Settings{OnKeyLoss: policy}); !errors.Is(err, ErrNotEncrypted) {
			t.Errorf("%s on a plain disk: %v", policy, err)
		}
	}
	if _, _, err := c.Set(t.Context(), "db", Settings{OnKeyLoss: "panic"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown policy: %v", err)
	}
	if _, err := c.Create(t.Context(), CreateOptions{Name: "bad", SizeBytes: diskSize, Encrypted: true, OnKeyLoss: "panic"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown policy: %v", err)
	}
}

func TestKeyStates(t *testing.T) {
	for state, err := range map[KeyState]error{
		KeyUsable: nil, KeyDisabled: keymgr.ErrDisabled, KeyPendingDeletion: keymgr.ErrPendingDeletion, KeyPendingImport: keymgr.ErrPendingImport,
		KeyNotFound: keymgr.ErrNotFound, KeyAccessDenied: keymgr.ErrAccessDenied, KeyUnknown: keymgr.ErrUnreachable,
	} {
		if got := KeyStateOf(err); got != state || got.Lost() != keymgr.IsLoss(err) {
			t.Errorf("%v: %s, lost %v", err, got, got.Lost())
		}
	}
	if got := KeyStateOf(keymgr.ErrCredentials); got != KeyUnknown || keymgr.IsLoss(keymgr.ErrCredentials) {
		t.Errorf("credentials that are no good: %s", got)
	}
	if KeyStateOf(context.DeadlineExceeded).Lost() {
		t.Error("a time-out is a loss")
	}
}

// reheader changes the token in the header of a disk.
func reheader(t *testing.T, c *Catalogue, r Record, edit func(*luks.Token)) {
	t.Helper()
	path, err := c.storeFile(r)
	if err != nil {
		t.Fatal(err)
	}
	f, err := openStore(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := luks.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	err = luks.Update(f, h, func(h *luks.Header) error {
		token, err := h.Token()
		if err == nil {
			edit(&token)
			err = h.SetToken(token)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
