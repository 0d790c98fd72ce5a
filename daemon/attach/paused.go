package attach

import (
	"context"
	"errors"
	"fmt"

	"sealblk/daemon/control"
	"sealblk/disk"
	"sealblk/qmp"
)

// whyHeld says more of a disk that its guest does not release: it may wait for I/O that
// waits for a key.
func whyHeld(ctx context.Context, c *disk.Catalogue, name string, err error) error {
	if !errors.Is(err, qmp.ErrGuestHolds) {
		return err
	}
	s, asked := control.Dial(c.ControlPath(name)).Status(ctx)
	if asked != nil || s.IOState != control.IOPaused {
		return err
	}
	return fmt.Errorf("%w; its guest waits for a disk that is paused, since its key is lost (%s): make the key usable, or have what the guest waits for fail with sealblk disk set %s --on-key-loss detach",
		err, s.KeyState, name)
}
