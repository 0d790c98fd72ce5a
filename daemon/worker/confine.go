package worker

import (
	"context"
	"fmt"

	"sealblk/disk"
)

// confine goes into the sandbox. What the log says of it is said in there already.
func (e *export) confine(ctx context.Context, c *disk.Catalogue, s *socket) error {
	if e.opts.Confine == nil {
		return nil
	}
	var files []string
	if s.file != nil {
		files = append(files, e.opts.SocketPath)
	}
	confined, err := e.opts.Confine(ctx, files, e.names())
	e.confined.Store(&confined) // also on an error: there may be files to release
	if err != nil {
		return fmt.Errorf("enter sandbox: %w", err)
	}
	e.opts.Log.Info("in the sandbox", "on", confined.Sandbox.String())
	return nil
}

// release removes the files of a confined worker. While it still has the disk's lock
// nobody else makes them again.
func (e *export) release() {
	release := e.confined.Load().Release
	if release == nil {
		return
	}
	if err := release(); err != nil {
		e.opts.Log.Warn("socket files are left behind; the next export replaces them", "err", err)
	}
}
