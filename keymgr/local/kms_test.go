package local

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

func TestDataKeyRoundTrip(t *testing.T) {
	k := newKMS(t)
	for _, key := range []string{"", newKey(t, k)} {
		dk, w := generate(t, k, key)
		if err := keymgr.CheckDataKey(dk); err != nil {
			t.Error(err)
		}
		info, err := k.DescribeKey(t.Context(), strings.TrimPrefix(w.URI, "local:"))
		if err != nil || w.URI != info.URI || w.Version != "1" || info.PrimaryVersion != "1" {
			t.Errorf("wrapped %s version %s, key %+v, %v", w.URI, w.Version, info, err)
		}
		wantOpens(t, k, w, dk)
		wantOpens(t, openAt(t, k.store.dir), w, dk)
		again, w2 := generate(t, k, key)
		if again.Equal(dk) || bytes.Equal(w.Blob, w2.Blob) {
			t.Error("two data keys are equal")
		}
	}
}

// TestLookingMakesNoKMS: only what makes a key makes a KMS. A folder that was lost is
// not taken for a new one.
func TestLookingMakesNoKMS(t *testing.T) {
	k := newKMS(t)
	dk, w := generate(t, k, newKey(t, k))
	dir := filepath.Dir(newFolder(t))
	gone, err := Open(filepath.Join(dir, "kms"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	_, err = gone.As(DiskService).Decrypt(t.Context(), w, disk("1"))
	wantError(t, "Decrypt", err, keymgr.ErrNotFound, CodeKeyNotFound)
	_, err = gone.DescribeKey(t.Context(), "")
	wantError(t, "DescribeKey", err, keymgr.ErrNotFound, CodeKeyNotFound)
	wantError(t, "DisableKey", gone.DisableKey(t.Context(), "x"), keymgr.ErrNotFound, CodeKeyNotFound)
	if list, err := gone.ListKeys(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("ListKeys: %v, %v", list, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
	// The folder comes back, under a process that runs.
	if err := os.Rename(k.store.dir, filepath.Join(dir, "kms")); err != nil {
		t.Fatal(err)
	}
	wantOpens(t, gone, w, dk)
}

func TestGenerateWithoutPlaintextLeavesNothingBehind(t *testing.T) {
	k := newKMS(t)
	live, _ := secret.Live()
	w, err := k.As(DiskService).GenerateDataKeyWithoutPlaintext(t.Context(), "", disk("1"))
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := secret.Live(); n != live {
		t.Errorf("%d secrets are in memory after the call", n-live)
	}
	dk, err := k.As(DiskService).Decrypt(t.Context(), w, disk("1"))
	if err != nil {
		t.Fatal(err)
	}
	defer dk.Destroy()
	if err := keymgr.CheckDataKey(dk); err != nil {
		t.Error(err)
	}
}

func TestOtherContextIsTold(t *testing.T) {
	k := newKMS(t)
	_, w := generate(t, k, "")
	live, _ := secret.Live()
	for _, ec := range []keymgr.Context{nil, disk("2"), {"other": "1"}, {keymgr.ContextDisk: "1", "more": ""}} {
		dk, err := k.As(DiskService).Decrypt(t.Context(), w, ec)
		if dk != nil {
			t.Fatalf("opened under %v", ec)
		}
		wantError(t, "Decrypt", err, keymgr.ErrContextMismatch, CodeContext)
		_, err = k.As(DiskService).ReEncrypt(t.Context(), w, ec, "")
		wantError(t, "ReEncrypt", err, keymgr.ErrContextMismatch, CodeContext)
	}
	if n, _ := secret.Live(); n != live {
		t.Errorf("%d data keys are left in memory", n-live)
	}
	_, err := k.As(DiskService).Decrypt(t.Context(), w, keymgr.Context{"": ""})
	wantError(t, "malformed context", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
}

func TestEveryBitOfABlobCounts(t *testing.T) {
	k := newKMS(t)
	_, w := generate(t, k, "")
	for bit := range 8 * len(w.Blob) {
		bad := w
		bad.Blob = bytes.Clone(w.Blob)
		bad.Blob[bit/8] ^= 1 << (bit % 8)
		for _, d := range []keymgr.Context{disk("1"), disk("2")} {
			if dk, err := k.As(DiskService).Decrypt(t.Context(), bad, d); dk != nil || !errors.Is(err, keymgr.ErrCorrupt) {
				t.Fatalf("bit %d flipped: %v", bit, err)
			}
		}
	}
}

func TestForgedHeadersDoNotOpen(t *testing.T) {
	k := newKMS(t)
	a, b := newKey(t, k), newKey(t, k)
	_, wa := generate(t, k, a)
	_, wb := generate(t, k, b)
	moved := wb // the data key of a under the name of b
	moved.Blob = append(bytes.Clone(wb.Blob[:blobContext]), wa.Blob[blobContext:]...)
	_, err := k.As(DiskService).Decrypt(t.Context(), moved, disk("1"))
	wantError(t, "other key's blob", err, keymgr.ErrCorrupt, CodeBlob)
	for what, w := range map[string]keymgr.WrappedKey{
		"other URI":     {URI: wb.URI, Version: wa.Version, Blob: wa.Blob},
		"other scheme":  {URI: "vault:" + a, Version: wa.Version, Blob: wa.Blob},
		"other version": {URI: wa.URI, Version: "2", Blob: wa.Blob},
		"no version":    {URI: wa.URI, Blob: wa.Blob},
	} {
		_, err := k.As(DiskService).Decrypt(t.Context(), w, disk("1"))
		wantError(t, what, err, keymgr.ErrCorrupt, CodeBlob)
	}
	future := wa
	future.Version, future.Blob = "2", bytes.Clone(wa.Blob)
	future.Blob[blobContext-1] = 2
	_, err = k.As(DiskService).Decrypt(t.Context(), future, disk("1"))
	wantError(t, "version that is not there", err, keymgr.ErrCorrupt, CodeBlob)
}

func TestRotation(t *testing.T) {
	k := newKMS(t)
	id := newKey(t, k)
	dk1, w1 := generate(t, k, id)
	info, err := k.RotateKey(t.Context(), id)
	if err != nil || info.PrimaryVersion != "2" || info.Versions != 2 {
		t.Fatalf("RotateKey: %+v, %v", info, err)
	}
	dk2, w2 := generate(t, k, id)
	if w2.Version != "2" {
		t.Errorf("new data key is under version %s", w2.Version)
	}
	wantOpens(t, k, w1, dk1)
	wantOpens(t, k, w2, dk2)
	w3, err := k.As(DiskService).ReEncrypt(t.Context(), w1, disk("1"), id)
	if err != nil || w3.Version != "2" {
		t.Fatalf("ReEncrypt: version %s, %v", w3.Version, err)
	}
	wantOpens(t, k, w3, dk1)
}

func TestReEncryptMovesADataKey(t *testing.T) {
	k := newKMS(t)
	id := newKey(t, k)
	dk, w := generate(t, k, "")
	moved, err := k.As(DiskService).ReEncrypt(t.Context(), w, disk("1"), id)
	if err != nil || moved.URI != "local:"+id {
		t.Fatalf("ReEncrypt: %s, %v", moved.URI, err)
	}
	wantOpens(t, k, moved, dk)
	back, err := k.As(DiskService).ReEncrypt(t.Context(), moved, disk("1"), "acs/ecs")
	if err != nil || back.URI != w.URI {
		t.Fatalf("ReEncrypt: %s, %v", back.URI, err)
	}
	wantOpens(t, k, back, dk)
}

func TestEqualHalvesAreRefused(t *testing.T) {
	k := newKMS(t)
	id := newKey(t, k)
	k.store.random = secret.New // zeros
	live, _ := secret.Live()
	dk, _, err := k.As(DiskService).GenerateDataKey(t.Context(), id, disk("1"))
	if dk != nil || !errors.Is(err, keymgr.ErrWeakKey) {
		t.Errorf("GenerateDataKey: %v", err)
	}
	if n, _ := secret.Live(); n != live {
		t.Errorf("%d secrets left", n-live)
	}
}

func TestServiceKey(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	_, err := k.DescribeKey(ctx, "acs/ecs")
	if e := wantError(t, "before first use", err, keymgr.ErrNotFound, CodeAliasNotFound); !strings.Contains(e.Hint, "first used") {
		t.Errorf("hint %q", e.Hint)
	}
	_, w := generate(t, k, "alias/acs/ecs")
	for _, name := range []string{"", "acs/ecs", "alias/acs/ecs"} {
		info, err := k.DescribeKey(ctx, name)
		if err != nil || info.URI != w.URI || !info.Service || info.Region != "local" || len(info.Aliases) != 1 || info.Aliases[0] != ServiceAlias {
			t.Errorf("DescribeKey(%q) = %+v, %v", name, info, err)
		}
		if _, again := generate(t, k, name); again.URI != w.URI {
			t.Errorf("%q made another service key", name)
		}
	}
	id := strings.TrimPrefix(w.URI, "local:")
	_, errSchedule := k.ScheduleKeyDeletion(ctx, id, 30, false)
	for what, err := range map[string]error{
		"disable": k.DisableKey(ctx, id), "schedule deletion": errSchedule,
		"authorize": k.Authorize(ctx, id, "eve", []Permission{Decrypt}), "revoke": k.Revoke(ctx, id, DiskService),
		"delete alias": k.DeleteAlias(ctx, "alias/acs/ecs"), "delete short alias": k.DeleteAlias(ctx, "acs/ecs"),
		"add alias": k.SetAlias(ctx, "alias/mine", id), "take alias": k.SetAlias(ctx, "alias/acs/ecs", newKey(t, k)),
	} {
		wantError(t, what, err, keymgr.ErrServiceKey, CodeServiceKey)
	}
	if err := errors.Join(k.EnableKey(ctx, id), k.UpdateKeyDescription(ctx, id, "ours")); err != nil {
		t.Error(err)
	}
	if _, err := k.RotateKey(ctx, id); err != nil {
		t.Error(err)
	}
}

func TestOneServiceKeyPerRegion(t *testing.T) {
	k := newKMS(t)
	_, here := generate(t, k, "")
	there, err := Open(k.store.dir, Options{Region: "eu-1"})
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	dk, w := generate(t, there, "acs/ecs")
	if w.URI == here.URI {
		t.Error("two regions share a service key")
	}
	wantOpens(t, k, w, dk) // by its id a key is known everywhere
	list, err := k.ListKeys(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("%d keys, %v", len(list), err)
	}
}

func TestOperatorCausesNoServiceKey(t *testing.T) {
	k := newKMS(t)
	_, _, err := k.GenerateDataKey(t.Context(), "", disk("1"))
	wantError(t, "operator generates", err, keymgr.ErrAccessDenied, CodeAccessDenied)
	if list, err := k.ListKeys(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("keys %v, %v", list, err)
	}
}

func TestUnknownKeys(t *testing.T) {
	k := newKMS(t)
	for name, code := range map[string]string{
		newID(): CodeKeyNotFound, "alias/none": CodeAliasNotFound, "none": CodeAliasNotFound, "../etc": CodeAliasNotFound,
	} {
		_, err := k.DescribeKey(t.Context(), name)
		if e := wantError(t, name, err, keymgr.ErrNotFound, code); e.Hint == "" {
			t.Errorf("%s: no hint", name)
		}
	}
}

func TestClosedAndCancelled(t *testing.T) {
	k := newKMS(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.ListKeys(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	other := k.As(DiskService)
	k.Close()
	k.Close()
	if _, err := other.DescribeKey(t.Context(), ""); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestNoSecretIsStoredButTheRootKey(t *testing.T) {
	k := newKMS(t)
	var secrets []*secret.Buffer
	k.store.random = func(size int) (*secret.Buffer, error) {
		b, err := secret.Random(size)
		if err != nil {
			return nil, err
		}
		kept, err := secret.New(size)
		copy(kept.Bytes(), b.Bytes())
		secrets = append(secrets, kept)
		return b, err
	}
	_, w := generate(t, k, newKey(t, k))
	generate(t, k, "")
	root, err := os.ReadFile(filepath.Join(k.store.dir, "root.key"))
	if err != nil || len(root) != 32 || len(secrets) != 4 {
		t.Fatalf("root.key of %d bytes, %d secrets, %v", len(root), len(secrets), err)
	}
	filepath.WalkDir(k.store.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		for i, s := range secrets {
			if bytes.Contains(data, s.Bytes()[:16]) {
				t.Errorf("%s holds secret %d", path, i)
			}
		}
		if bytes.Contains(data, root) && filepath.Base(path) != "root.key" {
			t.Errorf("%s holds the root key", path)
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
		return nil
	})
	for i, s := range secrets {
		if bytes.Contains(w.Blob, s.Bytes()[:16]) {
			t.Errorf("blob holds secret %d", i)
		}
		s.Destroy()
	}
}

func TestMaterialIsBoundToKeyAndVersion(t *testing.T) {
	root, err := secret.Random(keySize)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Destroy()
	a, b := newID(), newID()
	sealed, err := seal(root, make([]byte, keySize), materialAAD(a, 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id      string
		version uint32
		opens   bool
	}{{a, 1, true}, {b, 1, false}, {a, 2, false}} {
		m, err := unseal(root, sealed, materialAAD(c.id, c.version))
		if err != nil || (m != nil) != c.opens {
			t.Errorf("%s version %d: opened %v, %v", c.id, c.version, m != nil, err)
		}
		m.Destroy()
	}
}
