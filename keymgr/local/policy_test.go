package local

import (
	"errors"
	"reflect"
	"testing"

	"sealblk/keymgr"
)

func TestUserKeyGrantsNothingUntilAuthorized(t *testing.T) {
	k, ctx, service := newKMS(t), t.Context(), DiskService
	info, err := k.CreateKey(ctx, CreateOptions{Alias: "alias/db"})
	if err != nil {
		t.Fatal(err)
	}
	disks := k.As(service)
	_, _, err = disks.GenerateDataKey(ctx, "alias/db", disk("1"))
	e := wantError(t, "before", err, keymgr.ErrAccessDenied, "Forbidden.NoPermission")
	want := "sealblk key authorize " + info.KeyID + " --principal disk-service --allow generate,decrypt"
	if e.Hint != want {
		t.Errorf("hint %q, want %q", e.Hint, want)
	}
	allow, err := ParsePermissions("generate,decrypt")
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Authorize(ctx, "alias/db", service, allow); err != nil {
		t.Fatal(err)
	}
	dk, w := generate(t, k, "alias/db")
	wantOpens(t, k, w, dk)
	_, err = disks.ReEncrypt(ctx, w, disk("1"), "alias/db")
	e = wantError(t, "re-encrypt", err, keymgr.ErrAccessDenied, CodeAccessDenied)
	if e.Hint != "sealblk key authorize "+info.KeyID+" --principal disk-service --allow reencrypt" {
		t.Errorf("hint %q", e.Hint)
	}
	if err := k.Revoke(ctx, "alias/db", service); err != nil {
		t.Fatal(err)
	}
	_, err = disks.Decrypt(ctx, w, disk("1"))
	wantError(t, "after", err, keymgr.ErrAccessDenied, CodeAccessDenied)
}

func TestEachPermissionAllowsItsCallOnly(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := newKey(t, k)
	_, w := generate(t, k, id)
	for _, granted := range permissions {
		if err := k.Authorize(ctx, id, "p", []Permission{granted}); err != nil {
			t.Fatal(err)
		}
		p := k.As("p")
		dk, _, generateErr := p.GenerateDataKey(ctx, id, disk("1"))
		dk.Destroy()
		opened, decryptErr := p.Decrypt(ctx, w, disk("1"))
		opened.Destroy()
		_, reencryptErr := p.ReEncrypt(ctx, w, disk("1"), id)
		for needed, err := range map[Permission]error{
			Generate: generateErr, Decrypt: decryptErr, ReEncrypt: reencryptErr, Admin: p.UpdateKeyDescription(ctx, id, "x"),
		} {
			if denied := errors.Is(err, keymgr.ErrAccessDenied); denied == (needed == granted) || !denied && err != nil {
				t.Errorf("%s granted, %s needed: %v", granted, needed, err)
			}
		}
		if err := k.Revoke(ctx, id, "p"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeniedPrincipalDoesNotLearnTheState(t *testing.T) {
	k := newKMS(t)
	id := newKey(t, k)
	if err := k.DisableKey(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_, _, err := k.As("eve").GenerateDataKey(t.Context(), id, disk("1"))
	wantError(t, "eve", err, keymgr.ErrAccessDenied, CodeAccessDenied)
}

func TestOnlyAdministratorsChangeKeys(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := newKey(t, k)
	disks := k.As(DiskService)
	_, errCreate := disks.CreateKey(ctx, CreateOptions{})
	_, errRotate := disks.RotateKey(ctx, id)
	_, errSchedule := disks.ScheduleKeyDeletion(ctx, id, 7, false)
	for what, err := range map[string]error{
		"create": errCreate, "rotate": errRotate, "schedule": errSchedule, "disable": disks.DisableKey(ctx, id),
		"authorize": disks.Authorize(ctx, id, DiskService, []Permission{Admin}), "alias": disks.SetAlias(ctx, "alias/x", id),
	} {
		wantError(t, what, err, keymgr.ErrAccessDenied, CodeAccessDenied)
	}
}

func TestPolicyGrowsAndKeepsAnAdministrator(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	info, err := k.CreateKey(ctx, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]Permission{{Decrypt}, {Generate, Decrypt}} {
		if err := k.Authorize(ctx, info.KeyID, "p", list); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string][]Permission{"operator": {Admin}, "p": {Generate, Decrypt}}
	if got, err := k.Policy(ctx, info.KeyID); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("policy %v, %v, want %v", got, err, want)
	}
	err = k.Revoke(ctx, info.KeyID, Operator)
	wantError(t, "revoke the last administrator", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	if err := k.UpdateKeyDescription(ctx, info.KeyID, "still ours"); err != nil {
		t.Error(err)
	}
}

func TestMalformedArguments(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := newKey(t, k)
	_, errPermission := ParsePermissions("generate,all")
	_, errNone := ParsePermissions("")
	_, errAlias := k.CreateKey(ctx, CreateOptions{Alias: "db"})
	_, errOpen := Open(t.TempDir(), Options{Region: "EU 1"})
	for what, err := range map[string]error{
		"permission": errPermission, "no permission": errNone, "alias": errAlias, "region": errOpen,
		"principal":   k.Authorize(ctx, id, "Bob!", []Permission{Admin}),
		"description": k.UpdateKeyDescription(ctx, id, "two\nlines"),
		"set alias":   k.SetAlias(ctx, "alias/", id),
	} {
		wantError(t, what, err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	}
}

func TestAliases(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	a, err := k.CreateKey(ctx, CreateOptions{Alias: "alias/team/db"})
	if err != nil || !reflect.DeepEqual(a.Aliases, []string{"alias/team/db"}) {
		t.Fatalf("%+v, %v", a, err)
	}
	_, err = k.CreateKey(ctx, CreateOptions{Alias: "alias/team/db"})
	wantError(t, "taken alias", err, keymgr.ErrInvalid, CodeAliasExists)
	b, err := k.CreateKey(ctx, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	resolve := func(name string) string {
		info, err := k.DescribeKey(ctx, name)
		if err != nil {
			return "none"
		}
		return info.KeyID
	}
	if err := k.SetAlias(ctx, "alias/team/db", b.KeyID); err != nil || resolve("alias/team/db") != b.KeyID {
		t.Errorf("moved alias names %s, %v", resolve("alias/team/db"), err)
	}
	if err := k.SetAlias(ctx, "alias/second", "alias/team/db"); err != nil || resolve("alias/second") != b.KeyID {
		t.Errorf("second alias names %s, %v", resolve("alias/second"), err)
	}
	wantError(t, "create what is there", k.CreateAlias(ctx, "alias/second", a.KeyID), keymgr.ErrInvalid, CodeAliasExists)
	wantError(t, "update what is not there", k.UpdateAlias(ctx, "alias/third", a.KeyID), keymgr.ErrNotFound, CodeAliasNotFound)
	for _, set := range []error{
		k.CreateAlias(ctx, "alias/third", a.KeyID), k.UpdateAlias(ctx, "alias/third", b.KeyID), k.DeleteAlias(ctx, "alias/third"),
	} {
		if set != nil {
			t.Error(set)
		}
	}
	if err := k.DeleteAlias(ctx, "alias/team/db"); err != nil || resolve("alias/team/db") != "none" {
		t.Errorf("deleted alias names %s, %v", resolve("alias/team/db"), err)
	}
	wantError(t, "delete again", k.DeleteAlias(ctx, "alias/team/db"), keymgr.ErrNotFound, CodeAliasNotFound)
	for id, want := range map[string][]string{a.KeyID: {}, b.KeyID: {"alias/second"}} {
		if info, err := k.DescribeKey(ctx, id); err != nil || !reflect.DeepEqual(info.Aliases, want) {
			t.Errorf("aliases %v, %v, want %v", info.Aliases, err, want)
		}
	}
}
