package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"sealblk/blockdev/luks"
)

// Delete destroys a disk: the header of an encrypted one first, and with it the only
// copy of its wrapped key, then the backing file and the record. A delete that was
// interrupted is finished by another.
func (c *Catalogue) Delete(name string) error {
	_, err := c.Destroy(context.Background(), name)
	return err
}

// Destroy is Delete that tells what became of the key. The header is read back after it
// was overwritten, and what was found is recorded ([Catalogue.record]) before the disk
// is gone.
func (c *Catalogue) Destroy(ctx context.Context, name string) (Erasure, error) {
	if _, err := c.Get(name); err != nil {
		return Erasure{}, err
	}
	l, err := c.acquire(name)
	if err != nil {
		return Erasure{}, err
	}
	defer l.release()
	lock, err := c.lockCatalogue(ctx) // so that no change brings the record back
	if err != nil {
		return Erasure{}, err
	}
	defer lock.Close()
	c.sweepRecords(name)
	e, err := c.destroy(ctx, name)
	if err != nil {
		return Erasure{}, fmt.Errorf("delete disk %s: %w", name, err)
	}
	return e, nil
}

func (c *Catalogue) destroy(ctx context.Context, name string) (e Erasure, err error) {
	r, err := c.Get(name)
	if err != nil {
		return e, err
	}
	if other, held := c.holder(r); held {
		return e, withHint(fmt.Errorf("%w: %s is also the backend of disk %s", ErrMismatch, r.Backend, other),
			"nothing was deleted; find out whose it is, and remove the record of the other by hand")
	}
	if err := c.takeBack(r); err != nil { // a second name of the backing file would keep its data
		return e, err
	}
	path, err := c.storeFile(r)
	if err != nil {
		return e, err
	}
	if e, err = c.destroyStore(ctx, r, path); err != nil {
		return e, err
	}
	return e, c.unlink(c.recordPath(name))
}

// destroyStore destroys the wrapped key first, so that an interrupted delete has
// destroyed the disk.
func (c *Catalogue) destroyStore(ctx context.Context, r Record, path string) (e Erasure, err error) {
	if path == "" {
		return e, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && r.Encrypted {
		return e, c.recordErasure(ctx, r, e) // it has gone before, or is somewhere else
	}
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return e, err
	}
	if r.Encrypted {
		if e, err = eraseOwn(r, path); err != nil {
			return e, err
		}
		if err := c.did("erase", path); err != nil {
			return e, err
		}
		err := c.recordErasure(ctx, r, e)
		if errors.Is(err, unix.ENOSPC) && info.Mode().IsRegular() {
			// To make room is what it is deleted for; without its header its data is noise.
			if err = os.Truncate(path, 0); err == nil {
				err = c.recordErasure(ctx, r, e)
			}
		}
		if err != nil {
			return e, err
		}
	}
	if !info.Mode().IsRegular() {
		return e, nil
	}
	return e, c.unlink(path)
}

// eraseOwn erases the header of a disk. One that is gone already is fine; anything that
// may be another's is left alone.
func eraseOwn(r Record, path string) (Erasure, error) {
	f, err := openStore(path, os.O_RDWR)
	if err != nil {
		return Erasure{}, err
	}
	defer f.Close()
	own, err := owns(r, f)
	if err != nil {
		return Erasure{}, err
	}
	if own {
		return eraseHeader(f)
	}
	blank, err := zeros(f, 2*headerCopy)
	if err != nil {
		return Erasure{}, err
	}
	if blank {
		return readErased(f, 2*headerCopy)
	}
	return Erasure{}, withHint(fmt.Errorf("%w: %s does not hold this disk", ErrMismatch, path),
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
