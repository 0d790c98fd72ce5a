package local

import (
	"testing"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// secretOf is a secret of so many bytes for a test.
func secretOf(t *testing.T, size int) *secret.Buffer {
	t.Helper()
	b, err := secret.Random(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Destroy)
	return b
}

func TestEncryptsWhatItIsGiven(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := newKey(t, k)
	service := k.As(DiskService)
	for _, size := range []int{1, 32, keymgr.DataKeySize, MaxPlaintext} {
		plain := secretOf(t, size)
		w, err := service.Encrypt(ctx, id, plain, disk("1"))
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		named, err := WrappedKey(w.Blob)
		if err != nil || named.URI != w.URI || named.Version != w.Version {
			t.Errorf("%d bytes: the blob names %s version %s, %v", size, named.URI, named.Version, err)
		}
		got, err := service.DecryptSecret(ctx, named, disk("1"))
		if err != nil || !got.Equal(plain) {
			t.Errorf("%d bytes: decrypted to something else, %v", size, err)
		}
		got.Destroy()
		_, err = service.DecryptSecret(ctx, named, disk("2"))
		wantError(t, "another context", err, keymgr.ErrContextMismatch, CodeContext)
		dk, err := service.Decrypt(ctx, named, disk("1"))
		if (err == nil) != (size == keymgr.DataKeySize) {
			t.Errorf("%d bytes as a data key: %v", size, err)
		}
		dk.Destroy()
		again, err := service.ReEncrypt(ctx, named, disk("1"), newKey(t, k))
		if err != nil || again.URI == w.URI {
			t.Errorf("%d bytes: re-encrypted: %v", size, err)
		}
	}
	_, err := service.Encrypt(ctx, id, secretOf(t, MaxPlaintext+1), disk("1"))
	wantError(t, "too much", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	_, err = service.Encrypt(ctx, id, nil, disk("1"))
	wantError(t, "nothing", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	if n := count(auditOf(t, k), DiskService, "Encrypt"); n != 6 {
		t.Errorf("%d encryptions are recorded, want 6", n)
	}
}

func TestGeneratesSecretsOfAnySize(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := newKey(t, k)
	service := k.As(DiskService)
	for _, size := range []int{1, 16, MaxGenerated} {
		made, w, err := service.GenerateSecret(ctx, id, size, nil)
		if err != nil || made.Len() != size {
			t.Fatalf("%d bytes: %d, %v", size, made.Len(), err)
		}
		got, err := service.DecryptSecret(ctx, w, nil)
		if err != nil || !got.Equal(made) {
			t.Errorf("%d bytes: decrypted to something else, %v", size, err)
		}
		got.Destroy()
		made.Destroy()
		if w, err = service.GenerateSecretWithoutPlaintext(ctx, id, size, nil); err != nil {
			t.Error(err)
		}
		_, err = service.Decrypt(ctx, w, nil)
		if err == nil {
			t.Errorf("%d bytes opened as a data key", size)
		}
	}
	for _, size := range []int{-1, 0, MaxGenerated + 1} {
		_, _, err := service.GenerateSecret(ctx, id, size, nil)
		wantError(t, "size", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	}
}

func TestKeyVersions(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	info, err := k.CreateKey(ctx, CreateOptions{Alias: "alias/v"})
	if err == nil {
		_, err = k.RotateKey(ctx, "alias/v")
	}
	if err != nil {
		t.Fatal(err)
	}
	id, list, err := k.KeyVersions(ctx, "alias/v")
	if err != nil || id != info.KeyID || len(list) != 2 || list[1].Version != "2" || !list[1].Created.Equal(noon) {
		t.Errorf("%s, %+v, %v", id, list, err)
	}
}

func TestWrongArgumentsMakeNoKMS(t *testing.T) {
	dir := newFolder(t)
	k, err := Open(dir, Options{Principal: DiskService})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	_, err = k.Encrypt(t.Context(), "", nil, nil)
	wantError(t, "nothing to encrypt", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	if there, err := k.store.there(); there || err != nil {
		t.Errorf("a KMS was made, %v", err)
	}
}
