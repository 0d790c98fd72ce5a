// Package atomicfile replaces files so that a crash leaves the old content or the
// new, and never a part of either.
package atomicfile

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// Write replaces the file at path with data. When it returns nil the new content
// and its directory entry are on stable storage. Killed in between it leaves a temporary
// file with the new content, which [Sweep] finds.
func Write(path string, data []byte, perm os.FileMode) error {
	dir, base := filepath.Dir(path), filepath.Base(path)
	f, err := os.CreateTemp(dir, pattern(base))
	if err != nil {
		return fmt.Errorf("create temporary file: %w", err)
	}
	if err := fill(f, data, perm); err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return SyncDir(dir)
}

func fill(f *os.File, data []byte, perm os.FileMode) error {
	defer f.Close()
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// Remove deletes a file and makes that durable. A file that is not there is fine.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the entries of a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Sweep removes from a folder what writes left that were killed: the temporary files of
// those files whose name dead tells. None of these may be written meanwhile.
func Sweep(dir string, dead func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	swept := false
	for _, e := range entries {
		if name, ok := target(e.Name()); !ok || !e.Type().IsRegular() || !dead(name) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("remove temporary file: %w", err)
		}
		swept = true
	}
	if !swept {
		return nil
	}
	return SyncDir(dir)
}

// pattern is that of the names of a file's temporary files, as os.CreateTemp takes it.
func pattern(name string) string { return "." + name + ".*.tmp" }

var temporary = regexp.MustCompile(`^\.(.+)\.[0-9]+\.tmp$`)

// target is the name of the file that a temporary file was to replace.
func target(name string) (string, bool) {
	m := temporary.FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	return m[1], true
}
