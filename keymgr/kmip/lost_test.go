package kmip

import (
	"testing"

	"github.com/ovh/kmip-go"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
)

// TestReplacementOutOfReach: a key that opens its disks is not lost with the one that was
// to take its place.
func TestReplacementOutOfReach(t *testing.T) {
	f := &fake{keys: map[string]fakeKey{"a": active(""), "mine": active("theirs"), "theirs": active("")}, denied: map[string]bool{"theirs": true}}
	k := open(t, f.start(t))
	dk, w := kmstest.Generate(t, k, "a")
	f.mu.Lock()
	f.keys["a"] = active("gone")
	f.mu.Unlock()
	kmstest.WantOpens(t, k, w, dk)
	for _, key := range []string{"a", "mine"} {
		if err := keymgr.CheckUsable(t.Context(), k, key, key); err != nil {
			t.Errorf("%s, whose replacement is out of reach: %v (a loss: %t)", key, err, keymgr.IsLoss(err))
		}
		if _, err := k.GenerateDataKeyWithoutPlaintext(t.Context(), key, kmstest.Disk("1")); err != nil {
			t.Errorf("wrap under %s: %v", key, err)
		}
	}
}

// TestRefusalsBeforeTheKey: what a server says before a key is named, or of names, says
// nothing of the key.
func TestRefusalsBeforeTheKey(t *testing.T) {
	f := &fake{keys: map[string]fakeKey{"a": active("")}, refuse: map[kmip.Operation]kmip.ResultReason{}}
	config := f.start(t)
	for _, reason := range []kmip.ResultReason{kmip.ResultReasonPermissionDenied, kmip.ResultReasonItemNotFound, kmip.ResultReasonObjectArchived} {
		f.mu.Lock()
		f.refuse[kmip.OperationQuery] = reason
		f.mu.Unlock()
		if _, err := open(t, config).DescribeKey(t.Context(), "a"); err == nil || keymgr.IsLoss(err) {
			t.Errorf("Query refused with %v: %v, a loss of the key", reason, err)
		}
	}
	f.mu.Lock()
	clear(f.refuse)
	f.mu.Unlock()
	for _, reason := range []kmip.ResultReason{kmip.ResultReasonPermissionDenied, kmip.ResultReasonOperationNotSupported} {
		f.mu.Lock()
		f.refuse[kmip.OperationLocate] = reason
		f.mu.Unlock()
		_, err := open(t, config).DescribeKey(t.Context(), "gone")
		kmstest.WantError(t, "a key that is gone, where names are not looked up", err, keymgr.ErrNotFound, CodeNotFound)
	}
}
