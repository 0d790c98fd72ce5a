package disk

import (
	"context"
	"fmt"
	"io"
	"os"

	"sealblk/blockdev/luks"
)

// Resize makes a disk larger: the record announces it; then come the backing file, the
// header of an encrypted disk, and the record's size, each durable before the next.
// Wherever that stops, the disk has its old size or its new one, all of it usable, and
// the same call goes on. The disk may be exported, which running tells: its worker is
// then to be told.
func (c *Catalogue) Resize(ctx context.Context, name string, size int64) (r Record, running bool, err error) {
	return c.change(ctx, name, func(r *Record) error { return c.grow(r, size) })
}

func (c *Catalogue) grow(r *Record, size int64) error {
	b, err := parseBackend(r.Backend)
	if err != nil {
		return err
	}
	if b.kind != "file" {
		return withHint(fmt.Errorf("%w: %s: has a fixed size", ErrBackend, b.kind), "only disks on file:PATH can be resized")
	}
	announced := r.RewrappingTo
	h, err := c.currentHeader(r)
	if err != nil {
		return err
	}
	r.RewrappingTo = announced // that re-wrap may be under way
	switch {
	case size == r.SizeBytes:
		r.GrowingTo = 0
		return nil
	case size < r.SizeBytes:
		return withHint(fmt.Errorf("%w: size %d bytes is less than the %d that the disk has", ErrInvalid, size, r.SizeBytes),
			"a disk can only grow: to make one smaller, copy its data to a new disk")
	}
	grown := *r
	grown.SizeBytes, grown.GrowingTo = size, 0
	grown.complete()
	if err := grown.validate(); err != nil {
		return err
	}
	r.GrowingTo = size
	if err := c.save(*r); err != nil {
		return err
	}
	if err := c.did("announce", c.recordPath(r.Name)); err != nil {
		return err
	}
	*r = grown
	return c.growStore(r, b.path, h)
}

// currentHeader reads the header of an encrypted disk, whose size and key are the ones
// that count.
func (c *Catalogue) currentHeader(r *Record) (*luks.Header, error) {
	if !r.Encrypted {
		return nil, nil
	}
	h, err := c.readHeader(*r)
	if err != nil {
		return nil, err
	}
	if size, fixed := h.Size(); fixed {
		r.SizeBytes = size
	}
	t, err := h.Token()
	if err != nil {
		return nil, err
	}
	r.adoptKeys(t)
	return h, nil
}

// endChanges writes down what a disk turned out to be whose resize or re-wrap was
// interrupted, or made through another state directory. Its lock is held.
func (c *Catalogue) endChanges(was, r Record) error {
	if was == r {
		return nil
	}
	if err := c.save(r); err != nil {
		return fmt.Errorf("end interrupted change of disk %s: %w", r.Name, err)
	}
	return nil
}

func (c *Catalogue) growStore(r *Record, path string, h *luks.Header) error {
	f, err := openStore(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.lengthen(f, r.SizeBytes, h); err != nil || h == nil {
		return err
	}
	if size, fixed := h.Size(); fixed && size == r.SizeBytes {
		return nil
	}
	if err := luks.Update(f, h, func(h *luks.Header) error { return h.Resize(r.SizeBytes) }); err != nil {
		return err
	}
	return c.did("header", path)
}

// lengthen makes room for the data behind what is in front of it. A block device has to
// have the room.
func (c *Catalogue) lengthen(f *os.File, size int64, h *luks.Header) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if h != nil {
		e, err := h.Data(end)
		if err != nil {
			return err
		}
		size += e.Offset
	}
	if end >= size {
		return nil
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return withHint(fmt.Errorf("%w: %s has %d bytes, the disk needs %d", ErrTooShort, f.Name(), end, size), "make the block device larger first")
	}
	if err := f.Truncate(size); err != nil {
		return withHint(fmt.Errorf("lengthen backing file: %w", err), "check the file system's limits and the user's quota")
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync backing file: %w", err)
	}
	return c.did("lengthen", f.Name())
}
