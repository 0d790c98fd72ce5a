package bench

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// checkDirect tells whether files in a directory can be read and written with direct
// I/O to a device. A file system in memory has none to go to.
func checkDirect(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is in memory: %w: use --dir with a directory on a disk", dir, ErrDirect)
	}
	f, err := os.CreateTemp(dir, "sealblk-bench-")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, unix.O_DIRECT); err != nil {
		return fmt.Errorf("%s: %w: use --dir with a directory on another file system", dir, ErrDirect)
	}
	return nil
}
