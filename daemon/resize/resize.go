// Package resize makes a disk larger whether or not it is exported.
//
// The one who asks changes the backing file, the header and the record, which an
// export in its sandbox cannot. Then the export, if there is one, is told to take over
// the new size, and tells its guest; so are those that stand by for the disk.
package resize

import (
	"context"
	"errors"
	"fmt"

	"sealblk/daemon/control"
	"sealblk/disk"
)

// ErrNotTold: the disk has its new size, and the export that runs does not know it yet.
var ErrNotTold = errors.New("the disk is resized, its guest is not told")

// Disk makes a disk larger, and has the export that runs tell its guest. An export that
// ends meanwhile needs no notice: the next one has the new size.
func Disk(ctx context.Context, c *disk.Catalogue, name string, size int64) (disk.Record, error) {
	r, running, err := c.Resize(ctx, name, size)
	if err != nil || !running {
		return r, err
	}
	for _, export := range c.ControlPaths(name) {
		_, err := control.Dial(export).Resize(ctx, size)
		if err != nil && !errors.Is(err, control.ErrNotRunning) {
			return r, fmt.Errorf("%w; resize it again to the same size: %w", ErrNotTold, err)
		}
	}
	return r, nil
}
