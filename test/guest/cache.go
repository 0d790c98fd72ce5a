package guest

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CacheDir is where kernels and initramfs are kept: sealblk/guest under
// $XDG_CACHE_HOME if that is set, else .cache/guest in the repository.
func CacheDir() (string, error) {
	if dir := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "sealblk", "guest"), nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find cache: %w", err)
	}
	for top := dir; ; top = filepath.Dir(top) {
		if _, err := os.Stat(filepath.Join(top, "go.mod")); err == nil {
			return filepath.Join(top, ".cache", "guest"), nil
		}
		if top == filepath.Dir(top) {
			return "", fmt.Errorf("%w: no go.mod at or above %s; set XDG_CACHE_HOME to choose the cache folder", ErrNoAssets, dir)
		}
	}
}

// lock keeps other processes out of the cache until the function it returns is called.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	return func() { f.Close() }, nil
}

// store writes a file whole or not at all.
func store(path string, data []byte) error {
	if _, err := os.Stat(path); err == nil {
		return nil // its name is the hash of its content
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return os.Rename(tmp, path)
}
