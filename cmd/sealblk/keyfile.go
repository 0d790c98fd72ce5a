package main

import (
	"context"
	"os"
	"path/filepath"

	"sealblk/keymgr/secret"
)

// keyFile is where a key is written to: a new file, or a pipe or device that is there.
type keyFile struct {
	path string
	made *os.File // nil for what is there
}

// newKeyFile makes the file, before there is a key that could be in the way. A pipe or a
// device is opened when the key is there: who reads it gets the key or nothing at all,
// not an end without a key.
func newKeyFile(path string) (k keyFile, err error) {
	k.path = path
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return k, nil
	}
	k.made, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return k, err
}

func (k keyFile) write(ctx context.Context, key *secret.Buffer) error {
	if k.made == nil {
		return k.send(ctx, key)
	}
	if err := key.WritePipe(k.made); err != nil {
		return err
	}
	if err := k.made.Sync(); err != nil {
		return err
	}
	if err := k.made.Close(); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(k.path)) // who was told that it is there relies on it
}

// send opens what is there, for which a pipe waits until somebody reads it.
func (k keyFile) send(ctx context.Context, key *secret.Buffer) error {
	f, err := awaited(ctx, func() (*os.File, error) { return os.OpenFile(k.path, os.O_WRONLY, 0) })
	if err != nil {
		return err
	}
	defer f.Close()
	return key.WritePipe(f)
}

// discard removes a file that was made and has not the whole key.
func (k keyFile) discard() {
	if k.made != nil {
		k.made.Close()
		_ = os.Remove(k.path)
	}
}
