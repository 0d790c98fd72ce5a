package worker

import (
	"context"
	"fmt"

	"sealblk/disk"
)

// confine goes into the sandbox. What the log says of it is said in there already.
func (e *export) confine(ctx context.Context, c *disk.Catalogue, s *socket) (err error) {
	if e.opts.Confine == nil {
		return nil
	}
	var files []string
	if s.file != nil {
		files = append(files, e.opts.SocketPath)
	}
	if e.confined, err = e.opts.Confine(ctx, files, e.names()); err != nil {
		return fmt.Errorf("enter sandbox: %w", err)
	}
	e.opts.Log.Info("in the sandbox", "on", e.confined.Sandbox.String())
	return nil
}

// release removes the files of a confined worker. While it still has the disk's lock
// nobody else makes them again.
func (e *export) release() {
	if e.confined.Release == nil {
		return
	}
	if err := e.confined.Release(); err != nil {
		e.opts.Log.Warn("socket files are left behind; the next export replaces them", "err", err)
	}
}
