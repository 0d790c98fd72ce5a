package local

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"sealblk/keymgr"
)

type stateRow struct {
	call                                              string
	enabled, disabled, pendingDeletion, pendingImport string
}

// stateTable is the reference cloud's published table (UpdateKeyDescription, RotateKey,
// SetRotation, SetDeletionProtection, ListKeyVersions and GetKeyUsage are added): for
// each call the code with which each state refuses it; Wrap is Encrypt for data keys.
// What is only for keys of external
// origin is in importTable.
var stateTable = []stateRow{
	{"GenerateDataKey", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	{"GenerateDataKeyWithoutPlaintext", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	{"Encrypt", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	{"Decrypt", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	{"ReEncrypt from", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	{"ReEncrypt to", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	{"Wrap", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
	{"DescribeKey", "", "", "", ""},
	{"ListKeys", "", "", "", ""},
	{"UpdateKeyDescription", "", "", "Rejected.PendingDeletion", ""},
	{"SetRotation", "", "", "Rejected.PendingDeletion", ""},
	{"SetDeletionProtection", "", "", "Rejected.PendingDeletion", ""},
	{"ListKeyVersions", "", "", "", ""},
	{"GetKeyUsage", "", "", "", ""},
	{"CreateAlias", "", "", "Rejected.StateModifiedFailed", ""},
	{"UpdateAlias", "", "", "Rejected.PendingDeletion", ""},
	{"DeleteAlias", "", "", "", ""},
	{"EnableKey", "", "", "Rejected.StateModifiedFailed", "Rejected.StateModifiedFailed"},
	{"DisableKey", "", "", "Rejected.StateModifiedFailed", "Rejected.StateModifiedFailed"},
	{"ScheduleKeyDeletion", "", "", "Rejected.StateModifiedFailed", ""},
	{"CancelKeyDeletion", "Rejected.StateModifiedFailed", "Rejected.StateModifiedFailed", "", "Rejected.StateModifiedFailed"},
	{"RotateKey", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"},
}

// stateAfter is the state that a call leaves where it succeeds; others leave it.
var stateAfter = map[string]keymgr.State{
	"EnableKey": keymgr.Enabled, "DisableKey": keymgr.Disabled,
	"ScheduleKeyDeletion": keymgr.PendingDeletion, "CancelKeyDeletion": keymgr.Enabled,
}

var codeErrors = map[string]error{
	"Rejected.Disabled":            keymgr.ErrDisabled,
	"Rejected.PendingDeletion":     keymgr.ErrPendingDeletion,
	"Rejected.PendingImport":       keymgr.ErrPendingImport,
	"Rejected.StateModifiedFailed": keymgr.ErrState,
}

// stateCalls make each call of the table on the key id; w is a data key under it and
// from one under another, enabled key.
func stateCalls(t *testing.T, k *KMS, id string, w, from keymgr.WrappedKey) map[string]func() error {
	ctx, service, ec := t.Context(), k.As(DiskService), disk("1")
	other := strings.TrimPrefix(from.URI, "local:")
	return map[string]func() error{
		"GenerateDataKey": func() error {
			dk, _, err := service.GenerateDataKey(ctx, id, ec)
			dk.Destroy()
			return err
		},
		"GenerateDataKeyWithoutPlaintext": func() error {
			_, err := service.GenerateDataKeyWithoutPlaintext(ctx, id, ec)
			return err
		},
		"Encrypt": func() error { _, err := service.Encrypt(ctx, id, material(t, 7), ec); return err },
		"Decrypt": func() error {
			dk, err := service.Decrypt(ctx, w, ec)
			dk.Destroy()
			return err
		},
		"ReEncrypt from": func() error { _, err := service.ReEncrypt(ctx, w, ec, other); return err },
		"ReEncrypt to":   func() error { _, err := service.ReEncrypt(ctx, from, ec, id); return err },
		"Wrap": func() error {
			dk, err := service.Decrypt(ctx, from, ec)
			if err != nil {
				t.Fatal(err)
			}
			defer dk.Destroy()
			_, err = service.Wrap(ctx, id, dk, ec)
			return err
		},
		"DescribeKey": func() error { _, err := k.DescribeKey(ctx, id); return err },
		"ListKeys": func() error {
			list, err := k.ListKeys(ctx)
			if !slices.ContainsFunc(list, func(i keymgr.KeyInfo) bool { return i.KeyID == id }) {
				t.Error("ListKeys leaves the key out")
			}
			return err
		},
		"UpdateKeyDescription":  func() error { return k.UpdateKeyDescription(ctx, id, "new") },
		"SetRotation":           func() error { return k.SetRotation(ctx, id, 300) },
		"SetDeletionProtection": func() error { return k.SetDeletionProtection(ctx, id, false) },
		"ListKeyVersions":       func() error { _, _, err := k.KeyVersions(ctx, id); return err },
		"GetKeyUsage":           func() error { _, err := k.KeyUsage(ctx, id); return err },
		"CreateAlias":           func() error { return k.CreateAlias(ctx, aliasFor(k, id, false), id) },
		"UpdateAlias":           func() error { return k.UpdateAlias(ctx, aliasFor(k, other, true), id) },
		"DeleteAlias":           func() error { return k.DeleteAlias(ctx, aliasFor(k, id, true)) },
		"EnableKey":             func() error { return k.EnableKey(ctx, id) },
		"DisableKey":            func() error { return k.DisableKey(ctx, id) },
		"ScheduleKeyDeletion":   func() error { _, err := k.ScheduleKeyDeletion(ctx, id, 7, false); return err },
		"CancelKeyDeletion":     func() error { return k.CancelKeyDeletion(ctx, id) },
		"RotateKey":             func() error { _, err := k.RotateKey(ctx, id); return err },
	}
}

// aliasFor is an alias that a key has or, if there is not to be one, that nobody has,
// set behind the table's back.
func aliasFor(k *KMS, id string, there bool) string {
	s, err := k.store.begin(context.Background())
	if err != nil {
		return ""
	}
	defer s.end()
	alias := "alias/table"
	s.index.deleteAlias(k.region, alias)
	if there {
		s.index.setAlias(k.region, alias, id)
	}
	r, err := s.load(id)
	if err != nil || s.commit(r) != nil {
		return ""
	}
	return alias
}

// importTable is the published table of the calls for keys of external origin.
var importTable = []stateRow{
	{"GetParametersForImport", "", "", "", ""},
	{"ImportKeyMaterial", "", "", "Rejected.StateModifiedFailed", ""},
	{"DeleteKeyMaterial", "", "", "", ""},
}

func TestImportStateTable(t *testing.T) {
	for _, row := range importTable {
		for state, code := range row.cells() {
			t.Run(row.call+"/"+string(state), func(t *testing.T) {
				k, ctx := newKMS(t), t.Context()
				id := externalKey(t, k)
				if state != keymgr.PendingImport {
					if err := k.ImportKeyMaterial(ctx, id, material(t, 1), time.Time{}); err != nil {
						t.Fatal(err)
					}
				}
				setState(t, k, id, state)
				wantCell(t, row.call, code, map[string]func() error{
					"GetParametersForImport": func() error { _, err := k.PrepareImport(ctx, id); return err },
					"ImportKeyMaterial":      func() error { return k.ImportKeyMaterial(ctx, id, material(t, 1), time.Time{}) },
					"DeleteKeyMaterial":      func() error { return k.DeleteKeyMaterial(ctx, id) },
				}[row.call](), id, state)
			})
		}
	}
}

func (r stateRow) cells() map[keymgr.State]string {
	return map[keymgr.State]string{
		keymgr.Enabled: r.enabled, keymgr.Disabled: r.disabled,
		keymgr.PendingDeletion: r.pendingDeletion, keymgr.PendingImport: r.pendingImport,
	}
}

// wantCell checks the result of a call against the table. A refusal names the key, its
// state and a command.
func wantCell(t *testing.T, call, code string, err error, id string, state keymgr.State) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	e := wantError(t, call, err, codeErrors[code], code)
	if !strings.Contains(e.Error(), id) || !strings.Contains(e.Error(), string(state)) || !strings.Contains(e.Hint, "sealblk key") {
		t.Errorf("%q with the hint %q does not name key, state and way out", e, e.Hint)
	}
}

func TestStateTable(t *testing.T) {
	k := newKMS(t)
	id, other := newKey(t, k), newKey(t, k)
	_, w := generate(t, k, id)
	_, from := generate(t, k, other)
	calls := stateCalls(t, k, id, w, from)
	if len(calls) != len(stateTable) {
		t.Fatalf("%d calls, %d rows", len(calls), len(stateTable))
	}
	for _, row := range stateTable {
		for state, code := range row.cells() {
			t.Run(row.call+"/"+string(state), func(t *testing.T) {
				setState(t, k, id, state)
				err := calls[row.call]()
				after := state
				if code == "" && stateAfter[row.call] != "" {
					after = stateAfter[row.call]
				}
				wantCell(t, row.call, code, err, id, state)
				if info, err := k.DescribeKey(t.Context(), id); err != nil || info.State != after {
					t.Errorf("state is %s afterwards, %v, want %s", info.State, err, after)
				}
			})
		}
	}
}

func TestScheduledDeletion(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	id := newKey(t, k)
	for _, days := range []int{-1, 0, 6, 367} {
		_, err := k.ScheduleKeyDeletion(ctx, id, days, false)
		wantError(t, "too few or many days", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	}
	for _, days := range []int{7, 366} {
		want := noon.AddDate(0, 0, days)
		when, err := k.ScheduleKeyDeletion(ctx, id, days, false)
		if err != nil || !when.Equal(want) {
			t.Fatalf("ScheduleKeyDeletion(%d) = %v, %v", days, when, err)
		}
		if info, _ := k.DescribeKey(ctx, id); info.DeletionDate == nil || !info.DeletionDate.Equal(want) {
			t.Errorf("DeletionDate %v, want %v", info.DeletionDate, want)
		}
		k.now = func() time.Time { return want.Add(-time.Second) }
		if err := k.CancelKeyDeletion(ctx, id); err != nil {
			t.Errorf("cancel a second before the date: %v", err)
		}
		if info, _ := k.DescribeKey(ctx, id); info.DeletionDate != nil || info.State != keymgr.Enabled {
			t.Errorf("after the cancellation: %+v", info)
		}
		k.now = func() time.Time { return noon }
	}
	when, err := k.ScheduleKeyDeletion(ctx, id, 7, false)
	if err != nil {
		t.Fatal(err)
	}
	k.now = func() time.Time { return when }
	wantError(t, "cancel at the date", k.CancelKeyDeletion(ctx, id), keymgr.ErrNotFound, CodeKeyNotFound)
}
