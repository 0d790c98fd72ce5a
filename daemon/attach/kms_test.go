package attach

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestKMSDown: without its KMS a disk cannot be attached; the user reads why, and nothing is
// half done. One that is attached goes on. When the KMS is back it works as ever, also for
// who began before that.
func TestKMSDown(t *testing.T) {
	h := newHost(t)
	down := func(yes bool) {
		t.Helper()
		var err error
		if yes {
			err = os.WriteFile(kmsDown(h.c.Dir()), nil, 0o600)
		} else {
			err = os.Remove(kmsDown(h.c.Dir()))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	down(true)
	for range 2 {
		_, err := h.attach("serves")
		if oneLine(t, err); err != nil && (!strings.HasPrefix(err.Error(), "attach disk db: start its export: disk db: unwrap data key: ") ||
			!strings.Contains(err.Error(), "KMS cannot be reached") || !strings.Contains(err.Error(), "kms.example")) {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(h.c.SocketPath("db")); !os.IsNotExist(err) {
			t.Errorf("a socket is left: %v", err)
		}
		down(false)
		h.wantNothing() // which opens the disk
		down(true)
	}
	time.AfterFunc(30*time.Millisecond, func() { os.Remove(kmsDown(h.c.Dir())) })
	if _, err := h.attach("serves"); err != nil {
		t.Fatalf("when the KMS comes back in time: %v", err)
	}
	down(true)
	if pid, ok := h.exporter(); !ok || !alive(pid) {
		t.Error("an export ended with its KMS")
	}
	if _, err := Detach(t.Context(), h.c, "db"); err != nil {
		t.Fatal(err)
	}
	down(false)
	h.wantNothing()
}
