package local

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// modelKey is what a key should be.
type modelKey struct {
	id       string
	state    keymgr.State
	versions int
	alias    string
	wrapped  []keymgr.WrappedKey
	plain    []*secret.Buffer
}

// model drives a KMS with random calls and compares it with what they should do.
type model struct {
	dir  string
	kms  *KMS
	keys []*modelKey
}

func (m *model) open(t *rapid.T) {
	k, err := Open(m.dir, Options{Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	m.kms = k
}

func (m *model) close() {
	m.kms.Close()
	for _, k := range m.keys {
		for _, dk := range k.plain {
			dk.Destroy()
		}
	}
}

func (m *model) draw(t *rapid.T) *modelKey {
	if len(m.keys) == 0 {
		t.Skip("no key yet")
	}
	return m.keys[rapid.IntRange(0, len(m.keys)-1).Draw(t, "key")]
}

// expect looks the call up in the state table, checks its error against it and tells
// whether the call should have worked.
func expect(t *rapid.T, call string, k *modelKey, err error) bool {
	row := stateTable[slices.IndexFunc(stateTable, func(r stateRow) bool { return r.call == call })]
	code := map[keymgr.State]string{
		keymgr.Enabled: row.enabled, keymgr.Disabled: row.disabled, keymgr.PendingDeletion: row.pendingDeletion,
	}[k.state]
	var e *keymgr.Error
	if code == "" && err != nil || code != "" && (!errors.As(err, &e) || e.Code != code) {
		t.Fatalf("%s in state %s: %v, want %q", call, k.state, err, code)
	}
	return code == ""
}

func (m *model) create(t *rapid.T) {
	if len(m.keys) == 4 {
		t.Skip("enough keys")
	}
	info, err := m.kms.CreateKey(context.Background(), CreateOptions{})
	if err == nil {
		err = m.kms.Authorize(context.Background(), info.KeyID, DiskService, []Permission{Generate, Decrypt})
	}
	if err != nil {
		t.Fatal(err)
	}
	m.keys = append(m.keys, &modelKey{id: info.KeyID, state: keymgr.Enabled, versions: 1})
}

func (m *model) changeState(t *rapid.T) {
	k, ctx := m.draw(t), context.Background()
	call := rapid.SampledFrom([]string{"EnableKey", "DisableKey", "ScheduleKeyDeletion", "CancelKeyDeletion", "RotateKey"}).Draw(t, "call")
	err := map[string]func() error{
		"EnableKey":           func() error { return m.kms.EnableKey(ctx, k.id) },
		"DisableKey":          func() error { return m.kms.DisableKey(ctx, k.id) },
		"ScheduleKeyDeletion": func() error { _, err := m.kms.ScheduleKeyDeletion(ctx, k.id, 9, false); return err },
		"CancelKeyDeletion":   func() error { return m.kms.CancelKeyDeletion(ctx, k.id) },
		"RotateKey":           func() error { _, err := m.kms.RotateKey(ctx, k.id); return err },
	}[call]()
	if !expect(t, call, k, err) {
		return
	}
	if call == "RotateKey" {
		k.versions++
	} else {
		k.state = stateAfter[call]
	}
}

func (m *model) moveAlias(t *rapid.T) {
	k := m.draw(t)
	alias := rapid.SampledFrom([]string{"alias/x", "alias/y"}).Draw(t, "alias")
	call := "CreateAlias"
	if slices.ContainsFunc(m.keys, func(k *modelKey) bool { return strings.Contains(k.alias, alias+" ") }) {
		call = "UpdateAlias"
	}
	if !expect(t, call, k, m.kms.SetAlias(context.Background(), alias, k.id)) {
		return
	}
	for _, other := range m.keys {
		other.alias = strings.ReplaceAll(other.alias, alias+" ", "")
	}
	k.alias += alias + " "
}

func (m *model) generate(t *rapid.T) {
	k := m.draw(t)
	dk, w, err := m.kms.As(DiskService).GenerateDataKey(context.Background(), k.id, disk("1"))
	if expect(t, "GenerateDataKey", k, err) {
		k.plain, k.wrapped = append(k.plain, dk), append(k.wrapped, w)
	}
}

func (m *model) decrypt(t *rapid.T) {
	k := m.draw(t)
	for i, w := range k.wrapped {
		dk, err := m.kms.As(DiskService).Decrypt(context.Background(), w, disk("1"))
		if expect(t, "Decrypt", k, err) && !dk.Equal(k.plain[i]) {
			t.Fatalf("data key %d of %s is another one", i, k.id)
		}
		dk.Destroy()
	}
}

// check compares what the KMS says of each key.
func (m *model) check(t *rapid.T) {
	list, err := m.kms.ListKeys(context.Background())
	for _, k := range m.keys {
		var info keymgr.KeyInfo
		if i := slices.IndexFunc(list, func(i keymgr.KeyInfo) bool { return i.KeyID == k.id }); i >= 0 {
			info = list[i]
		}
		want := strings.Fields(k.alias)
		slices.Sort(want)
		if err != nil || info.State != k.state || info.Versions != k.versions || !slices.Equal(info.Aliases, want) {
			t.Fatalf("%+v, %v, want %s, %d versions, aliases %v", info, err, k.state, k.versions, want)
		}
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := &model{dir: newFolder(t)}
		m.open(r)
		defer m.close()
		r.Repeat(map[string]func(*rapid.T){
			"create": m.create, "state": m.changeState, "alias": m.moveAlias, "generate": m.generate, "decrypt": m.decrypt,
			"reopen": func(r *rapid.T) { m.kms.Close(); m.open(r) },
			"":       m.check,
		})
	})
}
