package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"sealblk/blockdev/luks"
)

// Delete destroys a disk: the header of an encrypted one first, and with it the only
// copy of its wrapped key, then the backing file and the record. A delete that was
// interrupted is finished by another.
func (c *Catalogue) Delete(name string) error {
	if _, err := c.Get(name); err != nil {
		return err
	}
	l, err := c.acquire(name)
	if err != nil {
		return err
	}
	defer l.release()
	lock, err := c.lockCatalogue(context.Background()) // so that no change brings the record back
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := c.destroy(name); err != nil {
		return fmt.Errorf("delete disk %s: %w", name, err)
	}
	return nil
}

func (c *Catalogue) destroy(name string) error {
	r, err := c.Get(name)
	if err != nil {
		return err
	}
	if other, held := c.holder(r); held {
		return withHint(fmt.Errorf("%w: %s is also the backend of disk %s", ErrMismatch, r.Backend, other),
			"nothing was deleted; find out whose it is, and remove the record of the other by hand")
	}
	if err := c.takeBack(r); err != nil { // a second name of the backing file would keep its data
		return err
	}
	path, err := c.storeFile(r)
	if err != nil {
		return err
	}
	if err := c.destroyStore(r, path); err != nil {
		return err
	}
	return c.unlink(c.recordPath(name))
}

// destroyStore destroys the wrapped key first, so that an interrupted delete has
// destroyed the disk.
func (c *Catalogue) destroyStore(r Record, path string) error {
	info, err := os.Stat(path)
	if path == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if r.Encrypted {
		if err := eraseOwn(r, path); err != nil {
			return err
		}
		if err := c.did("erase", path); err != nil {
			return err
		}
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	return c.unlink(path)
}

// eraseOwn erases the header of a disk. One that is gone already is fine; anything that
// may be another's is left alone.
func eraseOwn(r Record, path string) error {
	f, err := openStore(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	own, err := owns(r, f)
	if err != nil {
		return err
	}
	if own {
		return luks.Erase(f)
	}
	if blank, err := zeros(f, 2*headerCopy); err != nil || blank {
		return err
	}
	return withHint(fmt.Errorf("%w: %s does not hold this disk", ErrMismatch, path),
		"nothing was deleted; if only the record is wrong, remove it by hand")
}

// owns tells whether a file has the header of a disk, or what is left of one of ours: a
// damaged header says no more whose it was.
func owns(r Record, f *os.File) (bool, error) {
	h, err := luks.Open(f)
	switch {
	case err == nil:
		t, err := h.Token()
		return err == nil && t.Disk.ID == r.ID, nil
	case errors.Is(err, luks.ErrDamaged):
		head := make([]byte, 2*headerCopy)
		n, err := f.ReadAt(head, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("read header: %w", err)
		}
		return bytes.Contains(head[:n], []byte(luks.TokenType)), nil // it is in each copy
	}
	return false, nil
}
