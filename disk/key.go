package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"sealblk/blockdev/luks"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// dataKey is a data key in its forms.
type dataKey struct {
	plain   *secret.Buffer // nil if it is not to be seen here
	wrapped keymgr.WrappedKey
	escrow  *keymgr.WrappedKey // nil for none
}

// keyID is what listings show for a key: the id in the embedded KMS, else the URI.
func keyID(uri string) string {
	if id, ok := strings.CutPrefix(uri, "local:"); ok {
		return id
	}
	return uri
}

// readHeader reads the LUKS2 header of a disk and checks that it is the record's.
func (c *Catalogue) readHeader(r Record) (*luks.Header, error) {
	path, err := c.storeFile(r)
	if err != nil {
		return nil, err
	}
	h, err := openHeader(path)
	if err != nil {
		return nil, fmt.Errorf("disk %s: header in %s: %w", r.Name, path, err)
	}
	if err := matches(r, h); err != nil {
		return nil, fmt.Errorf("disk %s: %w", r.Name, err)
	}
	return h, nil
}

func openHeader(path string) (*luks.Header, error) {
	f, err := openStore(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readStable(f)
}

// readStable reads a header that another process may be writing: one copy is whole at
// any moment, but not the same one while both are read.
func readStable(f io.ReaderAt) (*luks.Header, error) {
	h, err := luks.Open(f)
	for range 3 {
		if !errors.Is(err, luks.ErrDamaged) {
			break
		}
		h, err = luks.Open(f)
	}
	return h, err
}

// matches compares a record with the facts in the header's token. The header may know
// of a larger size: a resize was interrupted, or made through another state directory.
// It counts, for a disk only grows. One that knows of a smaller size is an older copy,
// or another disk.
func matches(r Record, h *luks.Header) error {
	t, err := h.Token()
	if err != nil {
		return err
	}
	d := t.Disk
	differ := func(what string, record, header any) error {
		return withHint(fmt.Errorf("%w: %s is %v in the record and %v in the header", ErrMismatch, what, record, header),
			"if the backing file is the right one, remove the record and register the disk again with sealblk disk import")
	}
	switch {
	case d.ID != r.ID:
		return differ("disk id", r.ID, d.ID)
	case d.Lineage != r.Lineage:
		return differ("lineage", r.Lineage, d.Lineage)
	case t.Context[keymgr.ContextDisk] != r.Lineage:
		return differ("lineage in the encryption context", r.Lineage, t.Context[keymgr.ContextDisk])
	case d.Size < r.SizeBytes:
		return differ("size in bytes", r.SizeBytes, d.Size)
	case d.SectorSize != r.SectorSize:
		return differ("sector size", r.SectorSize, d.SectorSize)
	case d.Role != string(r.Role):
		return differ("role", r.Role, d.Role)
	case d.Serial != r.Serial:
		return differ("serial number", r.Serial, d.Serial)
	case !d.Created.Equal(r.Created):
		return differ("creation date", r.Created, d.Created)
	case t.DigestPending && !r.DigestPending:
		return differ("whether the disk was never opened", r.DigestPending, t.DigestPending)
	}
	return nil
}

// ExportKey unwraps the data key of a disk, to be written to a file: the way to the data
// when this program is gone. It is recorded, with the file, or nobody gets the key. The
// caller destroys the key.
func (c *Catalogue) ExportKey(ctx context.Context, name, file string) (*secret.Buffer, error) {
	return c.exportKey(ctx, name, mainSlot, file)
}

// ExportEscrowKey is ExportKey by the key in escrow.
func (c *Catalogue) ExportEscrowKey(ctx context.Context, name, file string) (*secret.Buffer, error) {
	return c.exportKey(ctx, name, escrowSlot, file)
}

func (c *Catalogue) exportKey(ctx context.Context, name string, from slot, file string) (*secret.Buffer, error) {
	r, t, dk, err := c.keyIn(ctx, name, from)
	if err != nil {
		return nil, err
	}
	if err := c.exported(ctx, r, t, from, file); err != nil {
		dk.Destroy()
		return nil, fmt.Errorf("disk %s: %w", name, err)
	}
	return dk, nil
}

// keyIn unwraps the data key in a slot of a disk's header.
func (c *Catalogue) keyIn(ctx context.Context, name string, from slot) (r Record, t luks.Token, dk *secret.Buffer, err error) {
	if r, err = c.Get(name); err != nil {
		return r, t, nil, err
	}
	if !r.Encrypted {
		return r, t, nil, fmt.Errorf("disk %s: %w: there is no key to export", name, ErrNotEncrypted)
	}
	h, err := c.readHeader(r)
	if err != nil {
		return r, t, nil, err
	}
	if t, err = h.Token(); err == nil {
		dk, err = c.unwrap(ctx, h, from)
	}
	if err != nil {
		return r, t, nil, fmt.Errorf("disk %s: %w", name, err)
	}
	return r, t, dk, nil
}

// extent tells where the data of a disk lies in its backing file, and proves that
// the file holds all of it. h is nil for a plain disk.
func extent(r Record, path string, h *luks.Header) (luks.Extent, error) {
	f, err := openStore(path, os.O_RDONLY)
	if err != nil {
		return luks.Extent{}, fmt.Errorf("disk %s: open backing file: %w", r.Name, err)
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return luks.Extent{}, err
	}
	e, err := within(r, end, h)
	if errors.Is(err, luks.ErrTooShort) || errors.Is(err, ErrTooShort) {
		err = withHint(err, "restore the file from a backup or a snapshot")
	}
	if err != nil {
		return luks.Extent{}, fmt.Errorf("disk %s: %s: %w", r.Name, path, err)
	}
	return e, nil
}

// within tells where the data lies in a file of that many bytes.
func within(r Record, end int64, h *luks.Header) (luks.Extent, error) {
	switch {
	case h == nil && end < r.SizeBytes:
		return luks.Extent{}, fmt.Errorf("%w: it has %d bytes, the disk %d", ErrTooShort, end, r.SizeBytes)
	case h == nil:
		return luks.Extent{Size: r.SizeBytes, SectorSize: r.SectorSize}, nil
	case h.Detached():
		return luks.Extent{}, fmt.Errorf("%w: the header says that the data is in another file", ErrMismatch)
	}
	e, err := h.Data(end)
	if err == nil && e.Size < r.SizeBytes { // the segment may go to wherever the file ends
		err = fmt.Errorf("%w: it has room for %d bytes, the disk has %d", ErrTooShort, e.Size, r.SizeBytes)
	}
	return e, err
}

// RefuseOurs makes sure that what is to be served as plain is not a container of
// ours: that would let a guest write plaintext over ciphertext.
func RefuseOurs(path string) error {
	if !holdsOurs(path) {
		return nil
	}
	return withHint(fmt.Errorf("%w: to be served as plain, but %s is an encrypted disk", ErrMismatch, path),
		"register it with sealblk disk import and export that disk; remove a record that calls it plain")
}

// holdsOurs looks for a header of ours, in whatever state. A file that cannot be read
// holds none: opening it to serve it tells more.
func holdsOurs(path string) bool {
	f, err := openStore(path, os.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	if h, err := luks.Open(f); err == nil {
		_, err := h.Token()
		return !errors.Is(err, luks.ErrNoToken) // else it is a container that a guest made
	}
	head := make([]byte, 2*headerCopy)
	n, _ := f.ReadAt(head, 0)
	return bytes.Contains(head[:n], []byte(`"type":"`+luks.TokenType+`"`))
}

// headerCopy is the size of each of the two copies of a header of ours.
const headerCopy = 16 << 10
