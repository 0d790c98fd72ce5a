package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sealblk/internal/credential"
)

const (
	// temporary ends the name of a file that is not finished.
	temporary = ".tmp"
	lockFile  = "lock"
)

// errReplaced: another folder took the place of the one that was to be locked.
var errReplaced = errors.New("folder was replaced")

// files is a folder whose files are replaced as a whole.
type files struct {
	dir string
	// step is called after each operation that changes the disk; its error is the
	// operation's. Tests fail or crash there.
	step func(operation, name string) error
}

func (f *files) path(name string) string { return filepath.Join(f.dir, name) }

func (f *files) did(operation, name string) error {
	if f.step == nil {
		return nil
	}
	return f.step(operation, name)
}

// make creates the folder, or refuses one that others may enter or have prepared.
func (f *files) make(name string) error {
	path := f.path(name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	if err := f.did("mkdir", name); err != nil {
		return err
	}
	if err := checkPrivate(path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("examine folder: %w", err)
	}
	if owner, foreign := credential.ForeignOwner(info); foreign {
		return fmt.Errorf("open %s: it belongs to user %d, look what is in it, then run: chown -R %d %s: %w", path, owner, os.Geteuid(), path, fs.ErrPermission)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("open %s: mode %04o lets others in, run: chmod 700 %s: %w", path, mode, path, fs.ErrPermission)
	}
	return nil
}

// replace writes a file so that its name shows the old or the new content after a
// crash. The caller holds the lock, so the name of the temporary file is free: one
// that is there was left by a crash.
func (f *files) replace(name string, fill func(*os.File) error) error {
	path := f.path(name)
	tmp := path + temporary
	if err := f.writeNew(tmp, name, fill); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), removeIfThere(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("replace file: %w", err), removeIfThere(tmp))
	}
	return f.sync("rename", name)
}

// writeNew never writes into a file that is there: whoever made it may read it.
func (f *files) writeNew(path, name string, fill func(*os.File) error) error {
	if err := removeIfThere(path); err != nil {
		return err
	}
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := f.did("create", name); err != nil {
		return err
	}
	if err := fill(w); err != nil {
		return err
	}
	if err := f.did("write", name); err != nil {
		return err
	}
	if err := w.Sync(); err != nil {
		return err
	}
	if err := f.did("sync", name); err != nil {
		return err
	}
	return w.Close()
}

// read returns a whole file of at most limit bytes.
func (f *files) read(name string, limit int64) ([]byte, error) {
	r, err := os.Open(f.path(name))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path(name), err)
	}
	if int64(len(data)) > limit {
		return nil, damaged(f.path(name), fmt.Sprintf("it is longer than %d bytes", limit))
	}
	return data, nil
}

func (f *files) exists(name string) (bool, error) {
	_, err := os.Lstat(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// lock waits until no other process uses the folder. Closing the file unlocks it,
// and so does the end of the process.
func (f *files) lock() (*os.File, error) {
	for {
		l, err := f.lockOnce()
		if !errors.Is(err, errReplaced) {
			return l, err
		}
	}
}

// lockOnce is lock that fails with errReplaced where a restore has put another folder
// in the place while it waited: what was read there before is of no use any more, and
// the lock of the old one keeps nobody out of the new one.
func (f *files) lockOnce() (*os.File, error) {
	l, err := os.OpenFile(f.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = flock(l)
	if err == nil {
		err = f.checkInPlace(l)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

func (f *files) checkInPlace(lock *os.File) error {
	mine, err := lock.Stat()
	if err != nil {
		return fmt.Errorf("examine lock: %w", err)
	}
	there, err := os.Stat(f.path(lockFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errReplaced
	case err != nil:
		return fmt.Errorf("examine lock: %w", err)
	case !os.SameFile(mine, there):
		return errReplaced
	}
	return nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
