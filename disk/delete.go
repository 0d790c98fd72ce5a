package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sealblk/blockdev/luks"
	"sealblk/internal/atomicfile"
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
	r, err := c.Get(name)
	if err != nil {
		return err
	}
	if err := c.destroy(r); err != nil {
		return fmt.Errorf("delete disk %s: %w", name, err)
	}
	return atomicfile.Remove(c.recordPath(name))
}

func (c *Catalogue) destroy(r Record) error {
	b, err := parseBackend(r.Backend)
	if err != nil {
		return err
	}
	if r.Encrypted {
		if err := c.eraseHeader(r); err != nil {
			return err
		}
	}
	if b.kind != "file" {
		return atomicfile.Remove(c.headerPath(r.Name))
	}
	info, err := os.Stat(b.path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	return atomicfile.Remove(b.path)
}

// eraseHeader destroys the wrapped key. A backing file that already is gone has none.
func (c *Catalogue) eraseHeader(r Record) error {
	path, err := c.headerFile(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := ownHeader(r, f); err != nil {
		return err
	}
	return luks.Erase(f)
}

// ownHeader refuses to erase what is readable and another disk's. A header that is
// damaged or gone is what an interrupted delete leaves.
func ownHeader(r Record, f *os.File) error {
	h, err := luks.Open(f)
	if err != nil {
		return nil
	}
	t, err := h.Token()
	if err != nil || t.Disk.ID != r.ID {
		return withHint(fmt.Errorf("%w: %s holds another disk", ErrMismatch, f.Name()),
			"nothing was deleted; if only the record is wrong, remove "+filepath.Base(r.Name)+".json by hand")
	}
	return nil
}
