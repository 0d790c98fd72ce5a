package disk

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sealblk/blockdev"
	"sealblk/blockdev/bounce"
	"sealblk/blockdev/crypt"
	"sealblk/blockdev/file"
	"sealblk/blockdev/luks"
	"sealblk/blockdev/memory"
	"sealblk/blockdev/null"
	"sealblk/cipher"
	"sealblk/internal/linkname"
	"sealblk/internal/sigmask"
	"sealblk/keymgr/secret"
)

// OpenOptions say how to open a disk.
type OpenOptions struct {
	ReadOnly bool
	Engine   file.Engine
	// Standby opens a disk that another export may be using: the right to use it comes
	// with Take.
	Standby bool
	// UseEscrow opens the disk by its key in escrow, and asks the KMS of its own key
	// nothing.
	UseEscrow bool
	// HugePages puts bounce memory in the kernel's pool of huge pages, if it has enough.
	HugePages bool
}

// Disk is an open disk: its device stack, the key in locked memory, and the lock
// that keeps others out.
type Disk struct {
	Record Record
	// Device is the top of the stack, what a guest sees.
	Device blockdev.Device
	// Warnings are what an operator should know, one line each.
	Warnings []string

	catalogue *Catalogue
	lease     *lease
	holds     atomic.Bool
	lower     handover // the backing store, if it can be handed over
	proof     proof
	crypt     *crypt.Device  // nil for a plain disk
	keys      *secret.Buffer // round keys; nil while it is locked
	from      slot           // by which wrapping of the key it was opened
}

// Open locks a disk, unwraps and verifies its key, and builds its device stack.
func (c *Catalogue) Open(ctx context.Context, name string, o OpenOptions) (*Disk, error) {
	if _, err := c.Get(name); err != nil {
		return nil, err
	}
	d := &Disk{catalogue: c}
	var err error
	if d.lease, err = c.leaseFor(name, o); err != nil {
		return nil, err
	}
	d.holds.Store(!o.Standby)
	if err := c.open(ctx, d, name, o); err != nil {
		_ = d.Close() // nothing was written
		return nil, err
	}
	return d, nil
}

// afterKill is how long an export waits for the lock of the one before it.
var afterKill = time.Second

func (c *Catalogue) leaseFor(name string, o OpenOptions) (*lease, error) {
	if o.Standby {
		return c.standBy(name)
	}
	l, err := c.acquire(name)
	// A process that was killed has its locks until the kernel is done with it.
	for end := time.Now().Add(afterKill); errors.Is(err, ErrInUse) && time.Now().Before(end); l, err = c.acquire(name) {
		time.Sleep(5 * time.Millisecond) // there is nothing else to wait on
	}
	if err != nil {
		return nil, err
	}
	if err := l.share(); err != nil {
		l.release()
		return nil, fmt.Errorf("lock disk %s: %w", name, err)
	}
	return l, nil
}

func (c *Catalogue) open(ctx context.Context, d *Disk, name string, o OpenOptions) (err error) {
	was, err := c.Get(name)
	if err != nil {
		return err
	}
	d.Record = was
	h, err := c.currentHeader(&d.Record)
	if err != nil {
		return err
	}
	d.Record.GrowingTo = 0
	if err := c.openStack(ctx, d, h, o); err != nil {
		return err
	}
	if o.ReadOnly || o.Standby {
		return nil
	}
	return c.endChanges(was, d.Record)
}

func (c *Catalogue) openStack(ctx context.Context, d *Disk, h *luks.Header, o OpenOptions) error {
	b, err := parseBackend(d.Record.Backend)
	if err != nil {
		return err
	}
	if h != nil {
		return c.openEncrypted(ctx, d, b, h, o)
	}
	if b.kind == "file" {
		if err := RefuseOurs(b.path); err != nil {
			return err
		}
	}
	lower, err := openBackend(d.Record, b, nil, o)
	if err != nil {
		return err
	}
	d.lower, _ = lower.(handover)
	if d.Device, err = plain(lower, d.Record); err != nil {
		_ = lower.Close() // nothing was written
	}
	return err
}

// plain is the stack of a disk without encryption. The layer that ignores discards is
// there only where that is wanted, and copies nothing.
func plain(lower blockdev.Device, r Record) (blockdev.Device, error) {
	if r.Discard == DiscardUnmap {
		return lower, nil
	}
	return bounce.New(lower, bounce.Config{Aligned: 1, Discard: bounce.Ignore})
}

func (c *Catalogue) openEncrypted(ctx context.Context, d *Disk, b backend, h *luks.Header, o OpenOptions) error {
	d.Warnings = h.Warnings()
	if o.UseEscrow {
		d.from = escrowSlot
	}
	dk, err := c.keyToOpen(ctx, d, h, o)
	if err != nil {
		return fmt.Errorf("disk %s: %w", d.Record.Name, err)
	}
	defer dk.Destroy()
	lower, err := openBackend(d.Record, b, h, o)
	if err != nil {
		return err
	}
	if h.DigestPending() {
		err = c.bindDigest(&d.Record, h, dk)
	}
	if err == nil {
		err = d.encrypt(lower, dk, o)
	}
	if err != nil {
		_ = lower.Close() // nothing was written
		return fmt.Errorf("disk %s: %w", d.Record.Name, err)
	}
	d.lower, _ = lower.(handover)
	path, err := c.storeFile(d.Record)
	if err != nil {
		return err
	}
	return d.remember(path, h)
}

// encrypt puts the encryption layer over the backing store.
func (d *Disk) encrypt(lower blockdev.Device, dk *secret.Buffer, o OpenOptions) error {
	x, err := d.expand(dk)
	if err != nil {
		return err
	}
	opts := d.Record.policies()
	opts.HugePages = o.HugePages
	if d.crypt, err = crypt.New(lower, x, opts); err == nil {
		d.Device = d.crypt
	}
	return err
}

// expand makes the cipher of a data key. The round keys go into locked memory, which
// Close and Lock wipe.
func (d *Disk) expand(dk *secret.Buffer) (x *cipher.XTS, err error) {
	if d.keys, err = secret.New(cipher.StateSize); err != nil {
		return nil, err
	}
	err = sigmask.Do(func() error {
		x, err = cipher.NewXTSIn(d.keys.Bytes(), dk.Bytes(), d.Record.SectorSize)
		return err
	})
	return x, err
}

func (r *Record) policies() (o crypt.Options) {
	if r.Discard == DiscardIgnore {
		o.Discard = crypt.DiscardIgnore
	}
	if r.Zeroes == ZeroesUnmap {
		o.Zeroes = crypt.ZeroesUnmap
	}
	return o
}

// openBackend opens the store below the encryption.
func openBackend(r Record, b backend, h *luks.Header, o OpenOptions) (blockdev.Device, error) {
	switch b.kind {
	case "memory":
		return memory.New(r.SizeBytes, memory.Options{LogicalBlockSize: r.SectorSize, ReadOnly: o.ReadOnly})
	case "null":
		return null.New(r.SizeBytes, null.Options{LogicalBlockSize: r.SectorSize, ReadOnly: o.ReadOnly})
	}
	at, err := extent(r, b.path, h)
	if err != nil {
		return nil, err
	}
	dev, err := file.Open(b.path, file.Options{
		ReadOnly: o.ReadOnly, Offset: at.Offset, Size: r.SizeBytes,
		Engine: o.Engine, LogicalBlockSize: r.SectorSize, Lock: true, LockWait: file.AfterKill, Standby: o.Standby,
		AlignedMemory: r.Encrypted, // the memory of the encryption layer
	})
	if errors.Is(err, blockdev.ErrBusy) {
		return nil, withHint(fmt.Errorf("disk %s: %w", r.Name, err), "another program has the backing file open: stop it first")
	}
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", r.Name, err)
	}
	return dev, nil
}

// Names are those of the files that tell who exports the disk. The export makes the
// control socket; the rest is Publish's. Their public names are for who has the disk.
func (d *Disk) Names() (control, runtime linkname.Name) { return d.lease.control, d.lease.runtime }

// Publish tells other processes who exports the disk.
func (d *Disk) Publish(rt Runtime) error { return d.lease.publish(rt, d.Holds()) }

// Close closes the stack, wipes the key and gives up the lock. All queues of the
// device must be closed before.
func (d *Disk) Close() error {
	var err error
	if d.Device != nil {
		err = d.Device.Close()
	}
	d.keys.Destroy()
	if d.proof.file != nil {
		d.proof.file.Close()
	}
	d.lease.release()
	return err
}
