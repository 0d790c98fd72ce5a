package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"sealblk/blockdev/luks"
	"sealblk/internal/sigmask"
	"sealblk/keymgr/secret"
)

// A disk that was made without its key being seen has a header whose digest is pending.
// Who opens it first makes the digest, of the key that the KMS unwraps under the disk's
// context, before a byte is served. All of these must hold, or the disk does not open:
// the header says so in both its places; the record says that the disk was never
// opened; and, where that can be seen, nothing was ever written to it. So a header that
// is put back to pending in front of data lets no other key in.

// keyToOpen unwraps the key that a disk is opened with, and proves it, unless this is
// the first time.
func (c *Catalogue) keyToOpen(ctx context.Context, d *Disk, h *luks.Header, o OpenOptions) (*secret.Buffer, error) {
	t, err := h.Token()
	if err != nil {
		return nil, err
	}
	if h.DigestPending() && (o.ReadOnly || o.Standby) {
		return nil, withHint(fmt.Errorf("the disk was never opened: %w", luks.ErrDigestPending),
			"attach or export it once, to be read and written")
	}
	dk, err := c.decrypt(ctx, t, d.from)
	if err == nil && !h.DigestPending() {
		err = verify(h, dk)
	}
	if err == nil && d.from == escrowSlot {
		err = c.usedEscrow(ctx, d.Record, t, "opened")
	}
	if err != nil {
		dk.Destroy()
		return nil, err
	}
	if d.from == escrowSlot {
		d.Warnings = append(d.Warnings, fmt.Sprintf("disk %s was opened by its key in escrow, %s; if its own key is lost: sealblk disk rewrap %s --use-escrow --key KEY",
			d.Record.Name, t.Escrow.KeyURI, d.Record.Name))
	}
	return dk, nil
}

// bindDigest makes the digest of a disk that is opened for the first time. The lock of
// the disk and that of its backing store are held.
func (c *Catalogue) bindDigest(r *Record, h *luks.Header, dk *secret.Buffer) error {
	path, err := c.storeFile(*r)
	if err != nil {
		return err
	}
	f, err := openStore(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := neverWritten(f, h); err != nil {
		return err
	}
	err = luks.Update(c.file(f), h, func(h *luks.Header) error {
		return sigmask.Do(func() error { return h.BindDigest(dk.Bytes()) })
	})
	if err != nil {
		return err
	}
	if err := verify(h, dk); err != nil {
		return err
	}
	r.DigestPending = false
	return c.did("bind", path)
}

// neverWritten refuses a store that holds data behind a header whose digest is pending.
// A block device may hold what was there before it was a disk: nothing can be told of
// it.
func neverWritten(f *os.File, h *luks.Header) error {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || h.Detached() {
		return err
	}
	e, err := h.Data(info.Size())
	if err != nil {
		return err
	}
	for off := e.Offset; ; {
		from, err := f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		to, err := f.Seek(from, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := allZero(f, from, to); err != nil {
			return err
		}
		off = to
	}
}

// allZero refuses a range of a file that holds anything: a copy of a sparse file may
// have lost its holes.
func allZero(f io.ReaderAt, from, to int64) error {
	buf := make([]byte, 1<<20)
	for off := from; off < to; {
		b := buf[:min(int64(len(buf)), to-off)]
		if _, err := io.ReadFull(io.NewSectionReader(f, off, int64(len(b))), b); err != nil {
			return fmt.Errorf("read byte %d: %w", off, err)
		}
		if !isZero(b) {
			return withHint(fmt.Errorf("%w: the header says that the disk was never opened, and there is data", ErrMismatch),
				"the header was put back or belongs to another file: restore it from a backup")
		}
		off += int64(len(b))
	}
	return nil
}
