package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sealblk/blockdev/luks"
	"sealblk/internal/atomicfile"
	"sealblk/internal/sigmask"
)

// storeFile is the one file that a disk consists of: its data, behind the header if it
// is encrypted, or nothing but the header where the backend cannot hold one. Empty for
// a disk without a file.
func (c *Catalogue) storeFile(r Record) (string, error) {
	b, err := parseBackend(r.Backend)
	switch {
	case err != nil:
		return "", err
	case b.kind == "file":
		return b.path, nil
	case r.Encrypted:
		return c.headerPath(r.Name), nil
	}
	return "", nil
}

// openStore opens what should be the backing file of a disk. It never waits, as opening
// a pipe would.
func openStore(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && info.Mode().Type() != os.ModeDevice {
		err = fmt.Errorf("%w: %s is neither a regular file nor a block device", ErrBackend, path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// draft is the name under which a backing file is made. It gets its own name when it
// is whole; until the record is there too it has both, and that is how a backing file
// that nobody needs any more is told from one that must not be touched.
func draft(r Record, path string) string {
	return filepath.Join(filepath.Dir(path), "."+r.ID+".new")
}

// build makes the backing file of a new disk. What exists is never overwritten.
func (c *Catalogue) build(r Record, dk dataKey) error {
	path, err := c.storeFile(r)
	if err != nil || path == "" {
		return err
	}
	if isDevice(path) {
		return c.buildOnDevice(r, dk, path)
	}
	if err := c.buildFile(r, dk, draft(r, path)); err != nil {
		return fmt.Errorf("make backing file %s: %w", path, err)
	}
	if err := os.Link(draft(r, path), path); err != nil {
		return linkError(path, err)
	}
	if err := c.did("link", path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

func (c *Catalogue) buildFile(r Record, dk dataKey, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return withoutPath(err)
	}
	defer f.Close()
	if err := c.did("create", path); err != nil {
		return err
	}
	if err := f.Truncate(r.fileSize()); err != nil {
		return withHint(fmt.Errorf("set its size: %w", withoutPath(err)), "check the file system's limits and the user's quota")
	}
	return c.fill(r, dk, f)
}

// fileSize is how long the backing file of a disk is.
func (r Record) fileSize() int64 {
	switch b, err := parseBackend(r.Backend); {
	case err == nil && b.kind != "file":
		return 0 // the header is as long as it likes
	case r.Encrypted:
		return luks.DataOffset + r.SizeBytes
	}
	return r.SizeBytes
}

// fill writes what a new backing store holds.
func (c *Catalogue) fill(r Record, dk dataKey, f *os.File) error {
	if r.Encrypted {
		if err := c.did("format", f.Name()); err != nil {
			return err
		}
		if err := format(f, params(r, dk), dk); err != nil {
			return err
		}
	}
	if err := c.did("fill", f.Name()); err != nil {
		return err
	}
	return f.Sync()
}

func format(f *os.File, p luks.Params, dk dataKey) (err error) {
	if dk.plain == nil {
		_, err = luks.FormatPending(f, p)
		return err
	}
	return sigmask.Do(func() error {
		_, err = luks.Format(f, p, dk.plain.Bytes())
		return err
	})
}

// params are what the header of a new disk says.
func params(r Record, dk dataKey) luks.Params {
	p := luks.Params{
		Label:    r.Name[:min(len(r.Name), luks.MaxLabel)], // the token has all of it
		Detached: r.fileSize() == 0,
		Token: luks.Token{
			Context: contextOf(r.Lineage), KeyScopeBlocks: r.KeyScopeBlocks,
			Disk: luks.Disk{
				ID: r.ID, Lineage: r.Lineage, Name: r.Name, Size: r.SizeBytes, SectorSize: r.SectorSize,
				Role: string(r.Role), Serial: r.Serial, Created: r.Created,
			},
		},
	}
	put(&p.Token, mainSlot, &dk.wrapped)
	put(&p.Token, escrowSlot, dk.escrow)
	return p
}

// remove takes back what build made for a disk that never came to be.
func (c *Catalogue) remove(r Record) error {
	path, err := c.storeFile(r)
	if err != nil || path == "" {
		return err
	}
	if isDevice(path) {
		return eraseNew(r, path)
	}
	made, err := os.Lstat(draft(r, path))
	if nothingThere(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if named, err := os.Lstat(path); err == nil && os.SameFile(made, named) {
		if err := c.unlink(path); err != nil {
			return err
		}
	}
	return c.unlink(draft(r, path))
}

// nothingThere tells that a file cannot have been made: its folder is none, has gone,
// or is closed to us.
func nothingThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR)
}

// eraseNew takes a header off a block device that held nothing before it.
func eraseNew(r Record, path string) error {
	f, err := openStore(path, os.O_RDWR)
	if nothingThere(err) || errors.Is(err, ErrBackend) {
		return nil // it was refused then as it is now
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if own, err := owns(r, f); err != nil || !own {
		return nil // it was not blank, or has become another's
	}
	return luks.Erase(f)
}

func (c *Catalogue) unlink(path string) error {
	if err := atomicfile.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // its folder may be gone
		return err
	}
	return c.did("unlink", path)
}

func isDevice(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeDevice != 0
}

// withoutPath leaves out of an error the name of a file that the user does not know.
func withoutPath(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

func linkError(path string, err error) error {
	var at *os.LinkError
	if !errors.As(err, &at) {
		return err
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return taken(path)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP):
		return withHint(fmt.Errorf("name backing file %s: %w: its file system has no hard links", path, ErrBackend), "choose another with --backend")
	}
	return fmt.Errorf("name backing file %s: %w", path, at.Err)
}

func taken(path string) error {
	return withHint(fmt.Errorf("backing file %s: %w", path, ErrExists),
		"choose another with --backend; if it is a disk of ours, register it with sealblk disk import")
}

// blankSize is how much of a block device must be zeros before it is taken for empty.
const blankSize = 1 << 20

// buildOnDevice makes a disk on a block device that holds nothing.
func (c *Catalogue) buildOnDevice(r Record, dk dataKey, path string) error {
	f, err := openStore(path, os.O_RDWR|unix.O_EXCL)
	if err != nil {
		return fmt.Errorf("open block device: %w", err)
	}
	defer f.Close()
	if err := checkBlank(f, r.fileSize()); err != nil {
		return fmt.Errorf("block device %s: %w", path, err)
	}
	return c.fill(r, dk, f)
}

func checkBlank(f *os.File, size int64) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if end < size {
		return fmt.Errorf("%w: it has %d bytes, the disk needs %d", ErrTooShort, end, size)
	}
	blank, err := zeros(f, min(blankSize, end))
	if err == nil && !blank {
		err = withHint(fmt.Errorf("%w: it holds data", ErrExists), "if that data is not needed, clear it first: wipefs --all, or blkdiscard")
	}
	return err
}

// zeros tells whether a file begins with nothing but zeros. One that is shorter than
// that is as good as zeros where it ends.
func zeros(f io.ReaderAt, size int64) (bool, error) {
	head := make([]byte, size)
	if n, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read byte %d: %w", n, err)
	}
	return len(bytes.Trim(head, "\x00")) == 0, nil
}
