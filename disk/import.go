package disk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"sealblk/blockdev/luks"
	"sealblk/internal/atomicfile"
)

// Import registers a disk that describes itself: its catalogue is lost, or it comes
// from another host. The backing store is only read. Its key must unwrap here and
// be proved right.
func (c *Catalogue) Import(ctx context.Context, name, backendURI string) (Record, error) {
	return c.importBy(ctx, name, backendURI, mainSlot)
}

// ImportByEscrow is Import that proves the key by that in escrow: the disk's own, or its
// KMS, is lost.
func (c *Catalogue) ImportByEscrow(ctx context.Context, name, backendURI string) (Record, error) {
	return c.importBy(ctx, name, backendURI, escrowSlot)
}

func (c *Catalogue) importBy(ctx context.Context, name, backendURI string, from slot) (Record, error) {
	if err := CheckName(name); err != nil {
		return Record{}, err
	}
	uri, err := normalise(backendURI)
	if err != nil {
		return Record{}, err
	}
	l, err := c.acquire(name)
	if err != nil {
		return Record{}, err
	}
	defer l.release()
	r, err := c.adopt(ctx, name, uri, from)
	if err != nil {
		return Record{}, fmt.Errorf("import %s: %w", backendURI, err)
	}
	return r, nil
}

// adopt registers a disk. Its CMKs are announced before the KMS is asked, so that none can
// be deleted in between ([Catalogue.UsersOf]).
func (c *Catalogue) adopt(ctx context.Context, name, uri string, from slot) (Record, error) {
	if err := c.settle(name); err != nil {
		return Record{}, err
	}
	if err := c.unregistered(Record{Name: name, Backend: uri}); err != nil {
		return Record{}, err
	}
	r, h, err := c.readForeign(name, uri)
	if err != nil {
		return Record{}, err
	}
	defer c.withdrawImport(name) //nolint:errcheck // without the lock of the disk it guards nothing
	if err := c.announceImport(r); err != nil {
		return Record{}, err
	}
	path, err := c.storeFile(r)
	if err != nil {
		return Record{}, err
	}
	if err := c.proveForeign(ctx, r, path, h, from); err != nil {
		return Record{}, err
	}
	return r, c.register(ctx, r)
}

func (c *Catalogue) register(ctx context.Context, r Record) error {
	lock, err := c.lockCatalogue(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	c.sweepRecords(r.Name)
	if err := c.unregistered(r); err != nil {
		return err
	}
	if other, taken := c.byID(r.ID); taken {
		return withHint(fmt.Errorf("disk id %s: %w as disk %s", r.ID, ErrExists, other), "this is a copy of that disk: two disks of one id cannot be in one catalogue")
	}
	return c.save(r)
}

func (c *Catalogue) announceImport(r Record) error {
	path := c.aheadPath(r.Name, importSuffix)
	if err := atomicfile.Write(path, r.encode(), 0o600); err != nil {
		return err
	}
	return c.did("announce", path)
}

func (c *Catalogue) withdrawImport(name string) error {
	return atomicfile.Remove(c.aheadPath(name, importSuffix))
}

// readForeign reads what a disk says of itself.
func (c *Catalogue) readForeign(name, uri string) (Record, *luks.Header, error) {
	b, err := parseBackend(uri)
	if err != nil {
		return Record{}, nil, err
	}
	if b.kind != "file" {
		return Record{}, nil, withHint(fmt.Errorf("%w: %s: keeps nothing that could be imported", ErrBackend, b.kind), "give file:PATH")
	}
	h, err := openHeader(b.path)
	if errors.Is(err, os.ErrNotExist) {
		return Record{}, nil, err
	}
	if errors.Is(err, luks.ErrNoHeader) || errors.Is(err, luks.ErrNoToken) {
		return Record{}, nil, withHint(ErrNotSelfDescribing, "only encrypted disks of ours describe themselves")
	}
	if err != nil {
		return Record{}, nil, err
	}
	r, err := recordOf(name, uri, h)
	if err != nil {
		return Record{}, nil, err
	}
	_, err = extent(r, b.path, h)
	return r, h, err
}

// proveForeign makes sure that the KMS opens the key of a disk that is to be
// registered, and that it is the right one: by the digest, or, if that is pending, in
// that nothing was ever written under another.
func (c *Catalogue) proveForeign(ctx context.Context, r Record, path string, h *luks.Header, from slot) error {
	t, err := h.Token()
	if err != nil {
		return err
	}
	if !h.DigestPending() {
		dk, err := c.unwrap(ctx, h, from)
		dk.Destroy()
		if err == nil && from == escrowSlot {
			err = c.usedEscrow(ctx, r, t, "imported")
		}
		return err
	}
	f, err := openStore(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := neverWritten(f, h); err != nil {
		return err
	}
	dk, err := c.decrypt(ctx, t, from)
	dk.Destroy()
	return err
}

// recordOf makes a record from what a header says of its disk.
func recordOf(name, uri string, h *luks.Header) (Record, error) {
	t, err := h.Token()
	if err != nil {
		if errors.Is(err, luks.ErrNoToken) {
			return Record{}, withHint(ErrNotSelfDescribing, "this LUKS2 container was made by other software")
		}
		return Record{}, err
	}
	d := t.Disk
	r := Record{
		Format: recordFormat, Name: name, ID: d.ID, Lineage: d.Lineage,
		SizeBytes: d.Size, Encrypted: true, SectorSize: d.SectorSize,
		Category: Cloud, Role: Role(d.Role),
		Serial: d.Serial, Backend: uri, Created: d.Created,
	}
	r.adoptKeys(t)
	r.complete()
	if err := r.validate(); err != nil {
		return Record{}, fmt.Errorf("header does not describe a disk: %w", err)
	}
	return r, matches(r, h)
}

func (c *Catalogue) byID(id string) (string, bool) {
	records, _ := c.List()
	for _, r := range records {
		if r.ID == id {
			return r.Name, true
		}
	}
	return "", false
}
