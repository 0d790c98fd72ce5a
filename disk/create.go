package disk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"sealblk/blockdev/luks"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// CreateOptions say what disk to make. Zero values are defaults.
type CreateOptions struct {
	Name      string
	SizeBytes int64
	Encrypted bool
	// Key is the URI of the CMK; empty is the service key.
	Key string
	// EscrowKey is the URI of a second CMK that wraps the data key too; empty for none.
	EscrowKey string
	// NoPlaintext makes the disk without seeing its data key here; the first who opens it
	// does.
	NoPlaintext bool
	Role        Role
	Category    Category
	SectorSize  int
	// Backend is a URI; empty is a new file under the state directory.
	Backend string
	Serial  string
	// OnKeyLoss is for encrypted disks.
	OnKeyLoss KeyLossPolicy
}

// Create makes a disk. Either it is there in the end, whole, or nothing is; a create
// that was interrupted is taken back by the next one.
func (c *Catalogue) Create(ctx context.Context, o CreateOptions) (Record, error) {
	r, err := c.newRecord(o)
	if err != nil {
		return Record{}, err
	}
	l, err := c.acquire(r.Name)
	if err != nil {
		return Record{}, err
	}
	defer l.release()
	if err := c.create(ctx, &r, o); err != nil {
		return Record{}, err
	}
	return r, nil
}

// create makes the disk of a record. The KMS is asked when the record is written ahead,
// so that none of its CMKs can be deleted in between ([Catalogue.UsersOf]), and while
// others can still add disks.
func (c *Catalogue) create(ctx context.Context, r *Record, o CreateOptions) error {
	if err := c.settle(r.Name); err != nil {
		return err
	}
	if err := c.vacant(*r); err != nil {
		return err
	}
	if r.Encrypted {
		if err := c.nameKeys(ctx, r, o); err != nil {
			return fmt.Errorf("create disk %s: look at its key: %w", r.Name, err)
		}
	}
	if err := c.claim(ctx, *r); err != nil {
		return err
	}
	if err := c.make(ctx, r, o.NoPlaintext); err != nil {
		return fmt.Errorf("create disk %s: %w", r.Name, errors.Join(err, c.takeBack(*r)))
	}
	return nil
}

// make makes the disk of a record that is written ahead.
func (c *Catalogue) make(ctx context.Context, r *Record, noPlaintext bool) error {
	var dk dataKey
	if r.Encrypted {
		var err error
		if dk, err = c.generate(ctx, r, noPlaintext); err != nil {
			return fmt.Errorf("generate data key: %w", err)
		}
		defer dk.plain.Destroy()
	}
	if err := c.build(*r, dk); err != nil {
		return err
	}
	return c.commit(*r)
}

// nameKeys notes in the record of a new disk which CMKs are to wrap its data key, by the
// URIs that others know them by too. A service key that is made by its first use has none
// yet, and needs no guard.
func (c *Catalogue) nameKeys(ctx context.Context, r *Record, o CreateOptions) (err error) {
	if r.KeyURI, _, err = c.resolve(ctx, orDefault(o.Key, keymgr.DefaultURI)); err != nil {
		return err
	}
	r.EscrowKeyURI, _, err = c.resolve(ctx, o.EscrowKey)
	return err
}

// newRecord fills in the defaults and checks all that can be checked without
// touching anything.
func (c *Catalogue) newRecord(o CreateOptions) (Record, error) {
	if err := CheckName(o.Name); err != nil {
		return Record{}, err
	}
	r := Record{
		Format: recordFormat, Name: o.Name, ID: newID(), SizeBytes: o.SizeBytes,
		Encrypted:  o.Encrypted || o.Key != "" || o.EscrowKey != "" || o.NoPlaintext,
		SectorSize: orDefault(o.SectorSize, 512),
		Category:   orDefault(o.Category, Cloud),
		Role:       orDefault(o.Role, Data),
		OnKeyLoss:  o.OnKeyLoss,
		Created:    time.Now().UTC().Truncate(time.Second),
	}
	r.complete()
	r.Lineage = r.ID
	r.Serial = orDefault(o.Serial, r.ID)
	backend, err := normalise(orDefault(o.Backend, "file:"+filepath.Join(c.dir, "volumes", o.Name+".img")))
	if err != nil {
		return Record{}, err
	}
	r.Backend = backend
	return r, r.validateShape()
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// generate gets a data key for a new disk under the CMKs that its record names, and
// completes what that says of them.
func (c *Catalogue) generate(ctx context.Context, r *Record, noPlaintext bool) (dk dataKey, err error) {
	ec := contextOf(r.Lineage)
	if noPlaintext {
		dk.wrapped, err = c.keys.GenerateDataKeyWithoutPlaintext(ctx, r.KeyURI, ec)
	} else {
		dk.plain, dk.wrapped, err = c.keys.GenerateDataKey(ctx, r.KeyURI, ec)
	}
	if err != nil {
		return dataKey{}, err
	}
	r.KeyURI, r.KeyID, r.KeyVersion = dk.wrapped.URI, keyID(dk.wrapped.URI), dk.wrapped.Version
	r.DigestPending = noPlaintext
	if r.EscrowKeyURI == "" {
		return dk, nil
	}
	if err := c.putInEscrow(ctx, &dk, ec, r.EscrowKeyURI); err != nil {
		dk.plain.Destroy()
		return dataKey{}, fmt.Errorf("put it in escrow: %w", err)
	}
	r.EscrowKeyURI = dk.escrow.URI
	return dk, nil
}

func (c *Catalogue) putInEscrow(ctx context.Context, dk *dataKey, ec keymgr.Context, key string) error {
	w, err := c.move(ctx, dk.wrapped, ec, key, dk.plain, dk.plain == nil)
	if err != nil {
		return err
	}
	if err := apart(dk.wrapped, w); err != nil {
		return err
	}
	dk.escrow = &w
	is := func(got *secret.Buffer) error {
		if !got.Equal(dk.plain) {
			return luks.ErrWrongKey
		}
		return nil
	}
	if dk.plain == nil {
		is = nil
	}
	_, err = c.prove(ctx, w, ec, is)
	return err
}

func contextOf(lineage string) keymgr.Context {
	return keymgr.Context{keymgr.ContextDisk: lineage}
}
