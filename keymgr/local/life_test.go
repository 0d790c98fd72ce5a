package local

import (
	"bytes"
	"context"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// at sets a KMS's clock to some days after noon.
func (k *KMS) at(days int) { k.now = func() time.Time { return noon.AddDate(0, 0, days) } }

// material is 32 equal bytes in locked memory.
func material(t *testing.T, b byte) *secret.Buffer {
	t.Helper()
	m, err := secret.New(MaterialSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Destroy)
	copy(m.Bytes(), bytes.Repeat([]byte{b}, MaterialSize))
	return m
}

// externalKey waits for its material; the disk service may use it.
func externalKey(t *testing.T, k *KMS) string {
	t.Helper()
	info, err := k.CreateKey(t.Context(), CreateOptions{External: true})
	if err == nil {
		err = k.Authorize(t.Context(), info.KeyID, DiskService, []Permission{Generate, Decrypt, ReEncrypt})
	}
	if err != nil || info.State != keymgr.PendingImport || info.Origin != "external" || info.PrimaryVersion != "" {
		t.Fatalf("external key %+v, %v", info, err)
	}
	return info.KeyID
}

func stateOf(t *testing.T, k *KMS, id string) keymgr.State {
	t.Helper()
	info, err := k.DescribeKey(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return info.State
}

func TestImportedMaterialComesAndGoes(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := externalKey(t, k)
	_, err := k.As(DiskService).GenerateDataKeyWithoutPlaintext(ctx, id, disk("1"))
	wantError(t, "without material", err, keymgr.ErrPendingImport, CodePendingImport)
	if err := k.ImportKeyMaterial(ctx, id, material(t, 1), time.Time{}); err != nil || stateOf(t, k, id) != keymgr.Enabled {
		t.Fatalf("import: %v", err)
	}
	dk, w := generate(t, k, id)
	if err := k.DeleteKeyMaterial(ctx, id); err != nil || stateOf(t, k, id) != keymgr.PendingImport {
		t.Fatalf("delete material: %v", err)
	}
	_, err = k.As(DiskService).Decrypt(ctx, w, disk("1"))
	wantError(t, "material deleted", err, keymgr.ErrPendingImport, CodePendingImport)
	if err := k.DeleteKeyMaterial(ctx, id); err != nil || stateOf(t, k, id) != keymgr.PendingImport {
		t.Errorf("delete material again: %v", err)
	}
	wantError(t, "other material", k.ImportKeyMaterial(ctx, id, material(t, 2), time.Time{}), keymgr.ErrInvalid, CodeMaterial)
	if err := k.ImportKeyMaterial(ctx, id, material(t, 1), time.Time{}); err != nil {
		t.Fatal(err)
	}
	wantOpens(t, openAt(t, k.store.dir), w, dk)
}

func TestImportedMaterialExpires(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := externalKey(t, k)
	if err := k.ImportKeyMaterial(ctx, id, material(t, 1), noon.AddDate(0, 0, 30)); err != nil {
		t.Fatal(err)
	}
	dk, w := generate(t, k, id)
	k.at(29)
	wantOpens(t, k, w, dk)
	k.at(30)
	if stateOf(t, k, id) != keymgr.PendingImport {
		t.Error("the material did not expire")
	}
	if stored := readFile(t, k.store.path(recordFile(id))); !bytes.Contains(stored, []byte(`"material":null`)) {
		t.Errorf("expired material is still stored: %s", stored)
	}
	wantError(t, "expired on arrival", k.ImportKeyMaterial(ctx, id, material(t, 1), noon), keymgr.ErrInvalid, keymgr.CodeInvalid)
	if err := k.ImportKeyMaterial(ctx, id, material(t, 1), time.Time{}); err != nil {
		t.Fatal(err)
	}
	k.at(400)
	wantOpens(t, k, w, dk)
	if n := count(auditOf(t, k), Itself, "ExpireKeyMaterial"); n != 1 {
		t.Errorf("the expiry was recorded %d times", n)
	}
}

func TestImportsThatAreRefused(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	made, id := newKey(t, k), externalKey(t, k)
	short, err := secret.New(31)
	if err != nil {
		t.Fatal(err)
	}
	defer short.Destroy()
	wantError(t, "31 bytes", k.ImportKeyMaterial(ctx, id, short, time.Time{}), keymgr.ErrInvalid, keymgr.CodeInvalid)
	wantError(t, "key made here", k.ImportKeyMaterial(ctx, made, material(t, 1), time.Time{}), keymgr.ErrInvalid, CodeOrigin)
	wantError(t, "delete material made here", k.DeleteKeyMaterial(ctx, made), keymgr.ErrInvalid, CodeOrigin)
	_, err = k.PrepareImport(ctx, made)
	wantError(t, "parameters for a key made here", err, keymgr.ErrInvalid, CodeOrigin)
	_, err = k.As(DiskService).PrepareImport(ctx, id)
	wantError(t, "parameters for a stranger", err, keymgr.ErrAccessDenied, CodeAccessDenied)
	_, err = k.CreateKey(ctx, CreateOptions{External: true, RotateDays: 30})
	wantError(t, "imported and rotating", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	wantError(t, "rotation of imported", k.SetRotation(ctx, id, 30), keymgr.ErrInvalid, keymgr.CodeInvalid)
	if err := k.ImportKeyMaterial(ctx, id, material(t, 1), time.Time{}); err != nil {
		t.Fatal(err)
	}
	_, err = k.RotateKey(ctx, id)
	wantError(t, "rotate imported", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	wantError(t, "other over present", k.ImportKeyMaterial(ctx, id, material(t, 2), time.Time{}), keymgr.ErrInvalid, CodeMaterial)
	if _, err := k.ScheduleKeyDeletion(ctx, id, 7, false); err != nil {
		t.Fatal(err)
	}
	err = k.ImportKeyMaterial(ctx, id, material(t, 1), time.Time{})
	wantError(t, "import into a key to be deleted", err, keymgr.ErrState, CodeState)
}

func TestMaterialThatExpiresBeforeTheDeletion(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := externalKey(t, k)
	if err := k.ImportKeyMaterial(ctx, id, material(t, 1), noon.AddDate(0, 0, 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.ScheduleKeyDeletion(ctx, id, 7, false); err != nil {
		t.Fatal(err)
	}
	k.at(3)
	if s := stateOf(t, k, id); s != keymgr.PendingDeletion {
		t.Errorf("state %s", s)
	}
	if err := k.CancelKeyDeletion(ctx, id); err != nil || stateOf(t, k, id) != keymgr.PendingImport {
		t.Errorf("cancelled: %v, %s", err, stateOf(t, k, id))
	}
}

func TestAutomaticRotation(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	for _, days := range []int{-1, 6, 366} {
		_, err := k.CreateKey(ctx, CreateOptions{RotateDays: days})
		wantError(t, "interval", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	}
	info, err := k.CreateKey(ctx, CreateOptions{RotateDays: 90})
	if err == nil {
		err = k.Authorize(ctx, info.KeyID, DiskService, []Permission{Generate, Decrypt})
	}
	if err != nil || info.NextRotation == nil || !info.NextRotation.Equal(noon.AddDate(0, 0, 90)) {
		t.Fatalf("%+v, %v", info, err)
	}
	id := info.KeyID
	dk, w := generate(t, k, id)
	k.at(89)
	if _, w := generate(t, k, id); w.Version != "1" {
		t.Errorf("version %s a day before", w.Version)
	}
	k.at(90)
	if _, w := generate(t, k, id); w.Version != "2" {
		t.Errorf("version %s when due", w.Version)
	}
	wantOpens(t, k, w, dk)
	k.at(1000) // long overdue: once
	if info, err := k.DescribeKey(ctx, id); err != nil || info.Versions != 3 {
		t.Errorf("%d versions, %v", info.Versions, err)
	}
	if err := k.DisableKey(ctx, id); err != nil {
		t.Fatal(err)
	}
	k.at(2000)
	if info, _ := k.DescribeKey(ctx, id); info.Versions != 3 || info.NextRotation != nil {
		t.Errorf("a disabled key rotated: %+v", info)
	}
	if err := k.EnableKey(ctx, id); err != nil {
		t.Fatal(err)
	}
	if info, _ := k.DescribeKey(ctx, id); info.Versions != 4 {
		t.Errorf("%d versions after it was enabled", info.Versions)
	}
	if err := k.SetRotation(ctx, id, 0); err != nil {
		t.Fatal(err)
	}
	k.at(3000)
	if info, _ := k.DescribeKey(ctx, id); info.Versions != 4 || info.RotationDays != 0 {
		t.Errorf("rotated after it was turned off: %+v", info)
	}
	if n := count(auditOf(t, k), Itself, "RotateKey"); n != 3 {
		t.Errorf("%d rotations are recorded, want 3", n)
	}
}

func count(entries []Entry, principal, operation string) int {
	n := 0
	for _, e := range entries {
		if e.Principal == principal && e.Operation == operation {
			n++
		}
	}
	return n
}

func TestDestruction(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := newKey(t, k)
	if err := k.SetAlias(ctx, "alias/a", id); err != nil {
		t.Fatal(err)
	}
	_, w := generate(t, k, id)
	if _, err := k.ScheduleKeyDeletion(ctx, id, 7, false); err != nil {
		t.Fatal(err)
	}
	k.at(7)
	if list, err := k.ListKeys(ctx); err != nil || len(list) != 0 {
		t.Errorf("listed afterwards: %v, %v", list, err)
	}
	if stored := readFile(t, k.store.path(recordFile(id))); !bytes.Contains(stored, []byte(`"material":null`)) {
		t.Errorf("the material is still stored: %s", stored)
	}
	_, err := k.As(DiskService).Decrypt(ctx, w, disk("1"))
	if e := wantError(t, "Decrypt", err, keymgr.ErrNotFound, CodeKeyNotFound); !strings.Contains(e.Error(), "destroyed") {
		t.Errorf("%v does not say what happened", err)
	}
	_, err = k.DescribeKey(ctx, "alias/a")
	wantError(t, "alias", err, keymgr.ErrNotFound, CodeAliasNotFound)
	wantError(t, "cancel", k.CancelKeyDeletion(ctx, id), keymgr.ErrNotFound, CodeKeyNotFound)
	if n := count(auditOf(t, k), Itself, "DestroyKey"); n != 1 {
		t.Errorf("the destruction was recorded %d times", n)
	}
}

// TestDueKeyThatIsDamaged: it is nobody else's concern.
func TestDueKeyThatIsDamaged(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := newKey(t, k)
	if _, err := k.ScheduleKeyDeletion(ctx, id, 7, false); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(k.store.path(recordFile(id)), 5); err != nil {
		t.Fatal(err)
	}
	k.at(8)
	generate(t, k, "")
}

func TestDeletionGuards(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := newKey(t, k)
	var asked string
	k.users = func(_ context.Context, uri string) ([]string, error) {
		asked = uri
		return []string{"disk db", "snapshot s1"}, nil
	}
	_, err := k.ScheduleKeyDeletion(ctx, id, 7, false)
	e := wantError(t, "in use", err, keymgr.ErrState, CodeInUse)
	if !strings.Contains(e.Error(), "disk db, snapshot s1") || !strings.Contains(e.Hint, "--force") || asked != "local:"+id {
		t.Errorf("%v; %s; asked for %s", e, e.Hint, asked)
	}
	if stateOf(t, k, id) != keymgr.Enabled {
		t.Error("the key's state changed")
	}
	if err := k.SetDeletionProtection(ctx, id, true); err != nil {
		t.Fatal(err)
	}
	_, err = k.ScheduleKeyDeletion(ctx, id, 7, true)
	wantError(t, "protected", err, keymgr.ErrState, CodeProtected)
	if err := k.SetDeletionProtection(ctx, id, false); err != nil {
		t.Fatal(err)
	}
	if _, err := k.ScheduleKeyDeletion(ctx, id, 7, true); err != nil {
		t.Errorf("by force: %v", err)
	}
	k.users = func(context.Context, string) ([]string, error) { return nil, errDisk }
	if _, err := k.ScheduleKeyDeletion(ctx, newKey(t, k), 7, false); !errors.Is(err, errDisk) {
		t.Errorf("users unknown: %v", err)
	}
}

func TestKeyUsage(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id, other := newKey(t, k), newKey(t, k)
	dk, w := generate(t, k, id)
	wantOpens(t, k, w, dk)
	wantOpens(t, k, w, dk)
	k.As(DiskService).Decrypt(ctx, w, disk("2"))
	if _, err := k.As(DiskService).ReEncrypt(ctx, w, disk("1"), other); err != nil {
		t.Fatal(err)
	}
	want := map[string][]Usage{
		id: {
			{"Authorize", "", 1, 0, noon}, {"CreateKey", "", 1, 0, noon}, {"Decrypt", "1", 2, 0, noon},
			{"Decrypt", "2", 1, 1, noon}, {"GenerateDataKey", "1", 1, 0, noon}, {"ReEncrypt", "1", 1, 0, noon},
		},
		other: {{"Authorize", "", 1, 0, noon}, {"CreateKey", "", 1, 0, noon}, {"ReEncrypt", "1", 1, 0, noon}},
	}
	for key, usage := range want {
		if got, err := k.KeyUsage(ctx, key); err != nil || !reflect.DeepEqual(got, usage) {
			t.Errorf("usage %v, %v, want %v", got, err, usage)
		}
	}
	_, err := k.KeyUsage(ctx, "alias/none")
	wantError(t, "unknown key", err, keymgr.ErrNotFound, CodeAliasNotFound)
	if !slices.ContainsFunc(auditOf(t, k), func(e Entry) bool { return e.Operation == "GetKeyUsage" && e.Key == id }) {
		t.Error("asking for the usage is not recorded")
	}
}
