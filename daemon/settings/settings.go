// Package settings changes the settings of a disk whether or not it is exported.
//
// Most of them count from the next export on. What becomes of the disk when its key is
// lost counts at once: the exports that run are told, those that stand by too.
package settings

import (
	"context"
	"errors"
	"fmt"

	"sealblk/daemon/control"
	"sealblk/disk"
)

// ErrNotTold: the setting is stored, and an export that runs does not go by it.
var ErrNotTold = errors.New("the setting is stored, an export that runs does not know it")

// Set changes settings of a disk.
func Set(ctx context.Context, c *disk.Catalogue, name string, s disk.Settings) (disk.Record, error) {
	r, running, err := c.Set(ctx, name, s)
	if err != nil || !running || s.OnKeyLoss == "" || !r.Encrypted {
		return r, err
	}
	for _, export := range c.ControlPaths(name) {
		_, err := control.Dial(export).SetOnKeyLoss(ctx, string(s.OnKeyLoss))
		if err != nil && !errors.Is(err, control.ErrNotRunning) {
			return r, fmt.Errorf("%w; set it again: %w", ErrNotTold, err)
		}
	}
	return r, nil
}
