package local

import (
	"slices"
	"strings"
	"testing"

	"sealblk/keymgr"
)

// TestWrapTakesADataKeyFromElsewhere: one that another KMS made opens here under its
// context, and under no other.
func TestWrapTakesADataKeyFromElsewhere(t *testing.T) {
	there, here := newKMS(t), newKMS(t)
	dk, _ := generate(t, there, "")
	for _, key := range []string{"acs/ecs", newKey(t, here)} { // the service key is made by it
		w, err := here.As(DiskService).Wrap(t.Context(), key, dk, disk("1"))
		if err != nil {
			t.Fatal(err)
		}
		wantOpens(t, here, w, dk)
		_, err = here.As(DiskService).Decrypt(t.Context(), w, disk("2"))
		wantError(t, "another disk", err, keymgr.ErrContextMismatch, CodeContext)
	}
}

func TestWrapNeedsPermission(t *testing.T) {
	k := newKMS(t)
	dk, _ := generate(t, k, "")
	info, err := k.CreateKey(t.Context(), CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.As(DiskService).Wrap(t.Context(), info.KeyID, dk, disk("1"))
	if e := wantError(t, "Wrap", err, keymgr.ErrAccessDenied, CodeAccessDenied); !strings.Contains(e.Hint, "key authorize") {
		t.Errorf("hint %q", e.Hint)
	}
}

// TestEventsAreRecorded: also of a key that is not there any more; and nothing that
// looks like a call.
func TestEventsAreRecorded(t *testing.T) {
	k, ctx := newKMS(t), t.Context()
	_, w := generate(t, k, "")
	service := k.As(DiskService)
	erased := keymgr.Event{Operation: keymgr.EventErase, URI: w.URI, Context: disk("1"), Detail: "disk db"}
	gone := keymgr.Event{Operation: keymgr.EventErase, URI: "local:key-gone", Context: disk("2")}
	for _, e := range []keymgr.Event{erased, gone} {
		if err := service.Record(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	err := service.Record(ctx, keymgr.Event{Operation: "Decrypt", URI: w.URI})
	wantError(t, "a forged call", err, keymgr.ErrInvalid, keymgr.CodeInvalid)
	var got []string
	for _, e := range auditOf(t, k) {
		if e.Operation != "CreateKey" {
			got = append(got, told(e)[2:])
		}
	}
	id := strings.TrimPrefix(w.URI, "local:")
	want := []string{
		"disk-service GenerateDataKey " + id + "/1 map[sealblk:disk:1]: ok",
		"disk-service EraseDataKey " + id + "/0 map[sealblk:disk:1] disk db: ok",
		"disk-service EraseDataKey key-gone/0 map[sealblk:disk:2]: ok",
	}
	if !slices.Equal(got, want) {
		t.Errorf("log\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if _, err := k.VerifyAudit(ctx); err != nil {
		t.Error(err)
	}
}
