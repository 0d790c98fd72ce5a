package attach

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sealblk/daemon/control"
	"sealblk/qmp"
)

// still is an export that is as a test wants it.
type still struct{ status control.Status }

func (s still) Status() control.Status  { return s.status }
func (still) Stop()                     {}
func (still) Resize(int64) error        { return nil }
func (still) SetOnKeyLoss(string) error { return nil }

// TestHeldByAPausedDisk: who cannot detach a disk since its guest waits for it is told what
// the guest waits for, and the ways out.
func TestHeldByAPausedDisk(t *testing.T) {
	held := fmt.Errorf("detach: %w", qmp.ErrGuestHolds)
	for state, want := range map[string]string{control.IOPaused: "disk set db --on-key-loss detach", control.IORunning: ""} {
		h := newHost(t)
		s, err := control.Serve(h.c.ControlPath("db"), still{control.Status{IOState: state, KeyState: "disabled"}})
		if err != nil {
			t.Fatal(err)
		}
		got := whyHeld(context.Background(), h.c, "db", held)
		if !errors.Is(got, qmp.ErrGuestHolds) || !strings.Contains(got.Error(), want) || (got.Error() == held.Error()) != (want == "") {
			t.Errorf("%s: %v", state, got)
		}
		oneLine(t, got)
		if other := whyHeld(context.Background(), h.c, "db", qmp.ErrNoSlot); other.Error() != qmp.ErrNoSlot.Error() {
			t.Errorf("another error became %v", other)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if gone := whyHeld(context.Background(), h.c, "db", held); gone.Error() != held.Error() {
			t.Errorf("without an export: %v", gone)
		}
	}
}
