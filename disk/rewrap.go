package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"sealblk/blockdev/luks"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// RewrapOptions say how to wrap a data key anew.
type RewrapOptions struct {
	// Key is the URI of the CMK to wrap it under; empty is the one that does now, whose
	// primary version counts.
	Key string
	// UseEscrow takes the data key out of escrow: the disk's own KMS, or its key, is
	// lost.
	UseEscrow bool
}

// Rewrapped tells what a re-wrap did.
type Rewrapped struct {
	Record Record
	// From and To are the wrapping before and after; they are equal if there was nothing
	// to do.
	From, To Wrapping
	// Changed: the header was written.
	Changed bool
}

// rewrap is one re-wrap under way.
type rewrap struct {
	from, to slot
	uri      string // of the CMK to wrap under
}

// errOvertaken: another changed the wrapping meanwhile.
var errOvertaken = errors.New("the wrapped key was changed meanwhile")

// maxOvertaken is how often a re-wrap begins again.
const maxOvertaken = 5

// Rewrap wraps the data key of a disk anew, also while it is exported: the export has
// the key and does not ask for the wrapped one again. The key itself, and so the data,
// stays the same. A wrapping that is up to date is left alone. The wrapping in escrow
// is brought up to date too, unless a key is given.
//
// The record announces the new CMK; after that the new wrapping is proved, which the KMS
// refuses if the CMK was taken out of use meanwhile; then the header is written, which
// has both its copies at any time; the record follows. So neither CMK can be deleted in
// between ([Catalogue.UsersOf]). Interrupted anywhere, the disk has the old wrapping or
// the new one, and the same call goes on.
func (c *Catalogue) Rewrap(ctx context.Context, name string, o RewrapOptions) (Rewrapped, error) {
	job := rewrap{mainSlot, mainSlot, o.Key}
	if o.UseEscrow {
		job.from = escrowSlot
	}
	out, err := c.rewrap(ctx, name, job)
	if err != nil || o.Key != "" || o.UseEscrow || out.Record.EscrowKeyURI == "" {
		return out, err
	}
	escrow, err := c.rewrap(ctx, name, rewrap{escrowSlot, escrowSlot, ""})
	if err != nil {
		return out, fmt.Errorf("key in escrow: %w", err)
	}
	out.Record, out.Changed = escrow.Record, out.Changed || escrow.Changed
	return out, nil
}

func (c *Catalogue) rewrap(ctx context.Context, name string, job rewrap) (out Rewrapped, err error) {
	for range maxOvertaken {
		if out, err = c.rewrapOnce(ctx, name, job); !errors.Is(err, errOvertaken) {
			break
		}
	}
	if err != nil {
		return Rewrapped{}, fmt.Errorf("re-wrap disk %s: %w", name, overtaken(err))
	}
	return out, nil
}

// overtaken says in a user's words that others were faster each time.
func overtaken(err error) error {
	if !errors.Is(err, errOvertaken) {
		return err
	}
	return withHint(fmt.Errorf("%w: %w", ErrInUse, err), "try again when the other re-wrap has ended")
}

func (c *Catalogue) rewrapOnce(ctx context.Context, name string, job rewrap) (Rewrapped, error) {
	r, err := c.Get(name)
	if err != nil {
		return Rewrapped{}, err
	}
	if !r.Encrypted {
		return Rewrapped{}, fmt.Errorf("%w: there is no key to wrap", ErrNotEncrypted)
	}
	h, err := c.readHeader(r)
	if err != nil {
		return Rewrapped{}, err
	}
	t, err := h.Token()
	if err != nil {
		return Rewrapped{}, err
	}
	source, there := wrappedIn(t, job.from)
	if !there && job.to == job.from { // it was in escrow a moment ago
		r.adoptKeys(t)
		now := Wrapping{t.KeyURI, t.KeyVersion}
		return Rewrapped{Record: r, From: now, To: now}, nil
	}
	if !there {
		return Rewrapped{}, withHint(fmt.Errorf("disk has no key in escrow: %w", ErrInvalid), "leave out --use-escrow")
	}
	before, _ := wrappedIn(t, job.to)
	if job.uri == "" {
		job.uri = before.URI
	}
	current, err := c.isCurrent(ctx, before, job)
	if err != nil {
		return Rewrapped{}, err
	}
	out := Rewrapped{Record: r, From: Wrapping{before.URI, before.Version}, Changed: !current}
	out.To = out.From
	switch {
	case !current:
		out.Record, out.To, err = c.rewrapUnder(ctx, r, h, t, source, job)
	case h.Warnings() != nil || r.behind(t):
		out.Record, err = c.replaceWrapped(ctx, name, t, job.to, &before)
	}
	return out, err
}

func (c *Catalogue) rewrapUnder(ctx context.Context, r Record, h *luks.Header, t luks.Token, source keymgr.WrappedKey, job rewrap) (Record, Wrapping, error) {
	w, err := c.rewrapped(ctx, t, source, job)
	if err != nil {
		return Record{}, Wrapping{}, err
	}
	r, err = c.install(ctx, r.Name, t, job.to, w, func() error {
		if err := c.proveRewrapped(ctx, h, t, source, w, job); err != nil || job.from == job.to {
			return err
		}
		return c.usedEscrow(ctx, r, t, "wrapped under "+w.URI)
	})
	return r, Wrapping{w.URI, w.Version}, err
}

// isCurrent tells whether a wrapping is what the job would make of it. A KMS that does
// not tell its versions has it made; a key that is not there may come to be by its use,
// as a service key does.
func (c *Catalogue) isCurrent(ctx context.Context, before keymgr.WrappedKey, job rewrap) (bool, error) {
	if job.from != job.to {
		return false, nil
	}
	info, err := c.keys.DescribeKey(ctx, job.uri)
	if errors.Is(err, keymgr.ErrAccessDenied) || errors.Is(err, keymgr.ErrUnsupported) || errors.Is(err, keymgr.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return info.URI == before.URI && info.PrimaryVersion == before.Version && before.Version != "", nil
}

// behind tells that a record does not say what the header's token does.
func (r Record) behind(t luks.Token) bool {
	now := r
	now.adoptKeys(t)
	return now != r
}

// rewrapped gets the new wrapping from the KMS.
func (c *Catalogue) rewrapped(ctx context.Context, t luks.Token, source keymgr.WrappedKey, job rewrap) (keymgr.WrappedKey, error) {
	w, err := c.move(ctx, source, t.Context, job.uri, nil, false)
	if err != nil {
		return w, err
	}
	if other, there := wrappedIn(t, 1-job.to); there && job.from == job.to && other.URI == w.URI {
		return w, withHint(fmt.Errorf("%w: %s wraps the key already, as the disk's own or in escrow", ErrInvalid, w.URI),
			"the two are to be different keys: sealblk disk set NAME --escrow-key KEY|none")
	}
	return w, nil
}

func (c *Catalogue) proveRewrapped(ctx context.Context, h *luks.Header, t luks.Token, source, w keymgr.WrappedKey, job rewrap) error {
	is := func(dk *secret.Buffer) error { return verify(h, dk) }
	if h.DigestPending() {
		is = nil // nothing to compare it with, and perhaps not to be seen here
	}
	seen, err := c.prove(ctx, w, t.Context, is)
	if err == nil && !seen && is != nil && job.to == mainSlot {
		err = c.stillOpens(ctx, source, w, t.Context)
	}
	return err
}

// install announces a new wrapping, has it proved, and puts it into a slot of a disk's
// header, if that has the keys of t all the while.
func (c *Catalogue) install(ctx context.Context, name string, t luks.Token, s slot, w keymgr.WrappedKey, prove func() error) (Record, error) {
	if err := c.announce(ctx, name, t, w.URI); err != nil {
		return Record{}, err
	}
	if err := prove(); err != nil {
		c.withdraw(ctx, name, w.URI)
		return Record{}, err
	}
	return c.replaceWrapped(ctx, name, t, s, &w)
}

// announce notes in a disk's record which CMK is about to wrap its data key.
func (c *Catalogue) announce(ctx context.Context, name string, t luks.Token, uri string) error {
	_, err := c.changeKeys(ctx, name, "announce", func(r *Record) error {
		h, err := c.readHeader(*r)
		if err != nil {
			return err
		}
		now, err := stillHas(h, t)
		if err != nil {
			return err
		}
		r.adoptKeys(now) // what another re-wrap announced may have come to be
		r.RewrappingTo = uri
		return nil
	})
	return err
}

// withdraw takes back what was announced and came to nothing, also for who gives up. If
// it stays, it guards a CMK without need until the next re-wrap or export.
func (c *Catalogue) withdraw(ctx context.Context, name, uri string) {
	_, _ = c.changeKeys(context.WithoutCancel(ctx), name, "withdraw", func(r *Record) error {
		if r.RewrappingTo != uri {
			return nil // it is another's by now
		}
		h, err := c.readHeader(*r)
		if err != nil {
			return err
		}
		t, err := h.Token()
		if err == nil {
			r.adoptKeys(t)
		}
		return err
	})
}

// stillHas is the token of a header that has the keys of was, or errOvertaken.
func stillHas(h *luks.Header, was luks.Token) (luks.Token, error) {
	t, err := h.Token()
	if err == nil && !sameKeys(t, was) {
		err = errOvertaken
	}
	return t, err
}

// replaceWrapped puts a wrapping into a slot of a disk's header, and into its record
// before and after, if the header's keys are still those of t. w is nil to empty the
// slot.
func (c *Catalogue) replaceWrapped(ctx context.Context, name string, t luks.Token, s slot, w *keymgr.WrappedKey) (Record, error) {
	return c.changeKeys(ctx, name, "save", func(r *Record) error { return c.swap(r, t, s, w) })
}

// changeKeys is change that lets an export start: it has the disk, and tells so in a
// moment.
func (c *Catalogue) changeKeys(ctx context.Context, name, operation string, alter func(*Record) error) (Record, error) {
	r, _, err := c.changeAs(ctx, name, operation, alter)
	for end := time.Now().Add(afterKill); errors.Is(err, ErrInUse) && time.Now().Before(end) && ctx.Err() == nil; r, _, err = c.changeAs(ctx, name, operation, alter) {
		time.Sleep(5 * time.Millisecond) // there is nothing else to wait on
	}
	return r, err
}

func (c *Catalogue) swap(r *Record, was luks.Token, s slot, w *keymgr.WrappedKey) error {
	path, err := c.storeFile(*r)
	if err != nil {
		return err
	}
	f, err := openStore(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	h, err := readStable(f)
	if err != nil {
		return err
	}
	if err := matches(*r, h); err != nil {
		return err
	}
	if _, err := stillHas(h, was); err != nil {
		return err
	}
	if err := c.rewrite(r, f, h, was, s, w); err != nil {
		return err
	}
	t, err := h.Token()
	if err != nil {
		return err
	}
	r.adoptKeys(t)
	return nil
}

// rewrite writes a header with another wrapping, which the record announces: if it is
// another's that it announces, the CMK of this one is not guarded. A header that has the
// wrapping, whole, is left as it is.
func (c *Catalogue) rewrite(r *Record, f *os.File, h *luks.Header, was luks.Token, s slot, w *keymgr.WrappedKey) error {
	now := was
	put(&now, s, w)
	same := sameKeys(now, was)
	if same && h.Warnings() == nil {
		return nil
	}
	if !same && w != nil && r.RewrappingTo != w.URI {
		return errOvertaken
	}
	if err := c.writeKeys(f, h, was, s, w); err != nil {
		return err
	}
	return c.did("header", f.Name())
}

func (c *Catalogue) writeKeys(f *os.File, h *luks.Header, was luks.Token, s slot, w *keymgr.WrappedKey) error {
	return luks.Update(c.file(f), h, func(h *luks.Header) error {
		t, err := stillHas(h, was)
		if err != nil {
			return err
		}
		put(&t, s, w)
		return h.SetToken(t)
	})
}

// file is a backing store as its header is written; tests look at each write.
func (c *Catalogue) file(f *os.File) luks.File {
	if c.headerFile == nil {
		return f
	}
	return c.headerFile(f)
}

// SetEscrow has the data key of a disk wrapped by a second CMK too, in place of the one
// that has it in escrow now; "" takes it out of escrow. The disk may be in use.
func (c *Catalogue) SetEscrow(ctx context.Context, name, key string) (r Record, err error) {
	for range maxOvertaken {
		if r, err = c.setEscrow(ctx, name, key); !errors.Is(err, errOvertaken) {
			break
		}
	}
	if err != nil {
		return Record{}, fmt.Errorf("disk %s: set key in escrow: %w", name, overtaken(err))
	}
	return r, nil
}

func (c *Catalogue) setEscrow(ctx context.Context, name, key string) (Record, error) {
	r, err := c.Get(name)
	if err != nil {
		return Record{}, err
	}
	if !r.Encrypted {
		return Record{}, fmt.Errorf("%w: there is no key to keep", ErrNotEncrypted)
	}
	h, err := c.readHeader(r)
	if err != nil {
		return Record{}, err
	}
	t, err := h.Token()
	if err != nil {
		return Record{}, err
	}
	if key == "" {
		return c.replaceWrapped(ctx, name, t, escrowSlot, nil)
	}
	source, _ := wrappedIn(t, mainSlot)
	w, err := c.move(ctx, source, t.Context, key, nil, h.DigestPending())
	if err != nil {
		return Record{}, err
	}
	if err := apart(source, w); err != nil {
		return Record{}, err
	}
	is := func(dk *secret.Buffer) error { return verify(h, dk) }
	if h.DigestPending() {
		is = nil
	}
	return c.install(ctx, name, t, escrowSlot, w, func() error {
		_, err := c.prove(ctx, w, t.Context, is)
		return err
	})
}

// apart refuses an escrow under the very key that the disk has: it would be lost with it.
func apart(main, escrow keymgr.WrappedKey) error {
	if main.URI != escrow.URI {
		return nil
	}
	return withHint(fmt.Errorf("%w: %s is the disk's own key", ErrInvalid, main.URI), "choose another for the escrow, best of another KMS")
}
