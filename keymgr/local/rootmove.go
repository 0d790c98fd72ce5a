package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sealblk/keymgr/secret"
)

// SetRootSource moves the root key to a source, whose name and settings may be those
// it has: RootFile, for which source is nil, or another one. The root key stays the
// same, so programs that have the KMS open go on. Only Operator may.
//
// After a crash at any point the KMS opens by the old or by the new source. When
// SetRootSource returns without an error, root.key was overwritten and removed, unless
// it is the new source.
func (k *KMS) SetRootSource(ctx context.Context, name string, source RootSource) error {
	return k.call(ctx, Entry{Operation: "SetRootSource", Detail: name}, func(t *session) error {
		switch {
		case k.principal != Operator:
			return onlyOperator("move the root key", k.principal)
		case name == RootFile:
			return t.moveRootToFile()
		case name == "" || source == nil:
			return invalid("", "", "no source of root keys is called %q", name)
		}
		if err := t.refuseLink(); err != nil {
			return err
		}
		if err := t.wrapRoot(name, source); err != nil {
			return err
		}
		return t.finishMove()
	})
}

// moveRootToFile writes root.key first. Until root.json is gone that is the old state.
func (s *store) moveRootToFile() error {
	if err := s.saveRoot(RootFile); err != nil {
		return err
	}
	return s.remove(rootWrapped)
}

// finishMove takes the plain root key away where root.json took its place, and what a
// crash left of it. The caller holds the lock, and root is what root.json holds.
func (s *store) finishMove() error {
	there, err := s.exists(rootWrapped)
	if err != nil || !there {
		return err // moved to the file by another process, since
	}
	same, err := s.sameRootFile()
	if err != nil {
		return err
	}
	if same {
		// Half overwritten it could not be told from another root key.
		if err := s.rename(rootFile, rootRetired); err != nil {
			return err
		}
	}
	return s.shredCopies()
}

// tidyFile takes away what a crash left of root.key, where that is the source. Beside a
// root.json that does not open it may be the last copy.
func (s *store) tidyFile() error {
	if there, err := s.exists(rootWrapped); err != nil || there {
		return err
	}
	return s.shredCopies()
}

func (s *store) shredCopies() error {
	return errors.Join(s.shred(rootRetired), s.shred(rootFile+temporary))
}

// refuseLink keeps a root key that is elsewhere from being left there.
func (s *store) refuseLink() error {
	info, err := os.Lstat(s.path(rootFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("examine root key: %w", err)
	}
	return invalid("", "put the file itself there", "%s is not a file", s.path(rootFile))
}

// sameRootFile tells whether root.key is there and holds the root key. Any other file
// stays what it is.
func (s *store) sameRootFile() (bool, error) {
	f, err := os.OpenFile(s.path(rootFile), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open root key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != keySize {
		return false, err
	}
	plain, err := secret.ReadPipe(f, keySize)
	if err != nil {
		return false, err
	}
	defer plain.Destroy()
	return plain.Equal(s.root), nil
}

// shred overwrites a file and removes it. A file system that copies on write, a
// snapshot, a backup and a flash disk may keep what was in it.
func (f *files) shred(name string) error {
	w, err := os.OpenFile(f.path(name), os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("overwrite: %w", err)
	}
	defer w.Close()
	info, err := w.Stat()
	if err != nil {
		return fmt.Errorf("examine %s: %w", w.Name(), err)
	}
	if _, err := w.WriteAt(make([]byte, info.Size()), 0); err != nil {
		return fmt.Errorf("overwrite %s: %w", w.Name(), err)
	}
	if err := w.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", w.Name(), err)
	}
	if err := f.did("overwrite", name); err != nil {
		return err
	}
	return f.remove(name)
}

func (f *files) rename(from, to string) error {
	if err := os.Rename(f.path(from), f.path(to)); err != nil {
		return fmt.Errorf("rename file: %w", err)
	}
	return f.sync("rename", to)
}

func (f *files) remove(name string) error {
	if err := removeIfThere(f.path(name)); err != nil {
		return fmt.Errorf("remove file: %w", err)
	}
	return f.sync("remove", name)
}

// sync makes a change of the folder durable.
func (f *files) sync(operation, name string) error {
	if err := f.did(operation, name); err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(f.path(name))); err != nil {
		return err
	}
	return f.did("sync folder", name)
}
