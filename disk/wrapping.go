package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"sealblk/blockdev/luks"
	"sealblk/internal/sigmask"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// slot is a place in the token where a wrapping of the data key is.
type slot int

const (
	mainSlot slot = iota
	escrowSlot
)

// Wrapping names the CMK, and its version, that a data key is wrapped under.
type Wrapping struct {
	KeyURI     string `json:"key_uri"`
	KeyVersion string `json:"key_version"`
}

// wrappedIn is the wrapped key in a slot; false if the slot is empty.
func wrappedIn(t luks.Token, s slot) (keymgr.WrappedKey, bool) {
	if s == mainSlot {
		return keymgr.WrappedKey{URI: t.KeyURI, Version: t.KeyVersion, Blob: t.WrappedKey}, true
	}
	if t.Escrow == nil {
		return keymgr.WrappedKey{}, false
	}
	return keymgr.WrappedKey{URI: t.Escrow.KeyURI, Version: t.Escrow.KeyVersion, Blob: t.Escrow.WrappedKey}, true
}

// put puts a wrapped key into a slot; nil empties that of the escrow.
func put(t *luks.Token, s slot, w *keymgr.WrappedKey) {
	switch {
	case s == mainSlot:
		t.KeyURI, t.KeyVersion, t.WrappedKey = w.URI, w.Version, w.Blob
	case w == nil:
		t.Escrow = nil
	default:
		t.Escrow = &luks.Escrow{KeyURI: w.URI, KeyVersion: w.Version, WrappedKey: w.Blob}
	}
}

// sameKeys tells whether two tokens hold the same blobs.
func sameKeys(a, b luks.Token) bool {
	for _, s := range []slot{mainSlot, escrowSlot} {
		x, _ := wrappedIn(a, s)
		y, _ := wrappedIn(b, s)
		if x.URI != y.URI || x.Version != y.Version || !bytes.Equal(x.Blob, y.Blob) {
			return false
		}
	}
	return true
}

// adoptKeys brings what a record says of the disk's key up to the header's token, which
// is what counts.
func (r *Record) adoptKeys(t luks.Token) {
	r.KeyURI, r.KeyID, r.KeyVersion = t.KeyURI, keyID(t.KeyURI), t.KeyVersion
	r.KeyScopeBlocks = max(t.KeyScopeBlocks, t.Disk.Blocks())
	r.DigestPending = t.DigestPending
	r.EscrowKeyURI, r.RewrappingTo = "", ""
	if t.Escrow != nil {
		r.EscrowKeyURI = t.Escrow.KeyURI
	}
}

// decrypt opens the wrapped key in a slot of a token, under the token's context. The
// KMS vouches that it was wrapped for this disk; whether it is the disk's key, the
// header's digest has to tell.
func (c *Catalogue) decrypt(ctx context.Context, t luks.Token, s slot) (*secret.Buffer, error) {
	w, there := wrappedIn(t, s)
	if !there {
		return nil, withHint(fmt.Errorf("disk has no key in escrow: %w", ErrInvalid), "leave out --use-escrow")
	}
	dk, err := c.keys.Decrypt(ctx, w, t.Context)
	if err != nil {
		return nil, escrowHint(fmt.Errorf("unwrap data key: %w", err), t, s)
	}
	return dk, nil
}

// escrowHint tells of the other way in, where the key's KMS is out of reach or has lost
// the key. A key that was disabled or denied stays what its owner wanted.
func escrowHint(err error, t luks.Token, s slot) error {
	if s != mainSlot || t.Escrow == nil || !errors.Is(err, keymgr.ErrNotFound) && !errors.Is(err, keymgr.ErrUnreachable) {
		return err
	}
	return withHint(err, "if that key is lost: the data key is in escrow under "+t.Escrow.KeyURI+", add --use-escrow")
}

// verify proves a data key by the header's digest.
func verify(h *luks.Header, dk *secret.Buffer) error {
	err := sigmask.Do(func() error { return h.VerifyKey(dk.Bytes()) })
	if errors.Is(err, luks.ErrDigestPending) {
		err = withHint(err, "attach or export it once, where the disk service may decrypt")
	}
	if err != nil {
		return fmt.Errorf("verify data key: %w", err)
	}
	return nil
}

// unwrap opens the wrapped data key of a header and proves that it is the right one.
func (c *Catalogue) unwrap(ctx context.Context, h *luks.Header, s slot) (*secret.Buffer, error) {
	t, err := h.Token()
	if err != nil {
		return nil, err
	}
	dk, err := c.decrypt(ctx, t, s)
	if err != nil {
		return nil, err
	}
	if err := verify(h, dk); err != nil {
		dk.Destroy()
		return nil, err
	}
	return dk, nil
}

// move wraps the data key in w under another CMK. Within one KMS the key does not leave
// it. From one KMS to another it passes through locked memory of this process, which
// plain saves if it is at hand; sealed forbids that.
func (c *Catalogue) move(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, to string, plain *secret.Buffer, sealed bool) (keymgr.WrappedKey, error) {
	if schemeOf(w.URI) == schemeOf(to) {
		out, err := c.keys.ReEncrypt(ctx, w, ec, to)
		if !errors.Is(err, keymgr.ErrUnsupported) {
			return out, err
		}
	}
	if sealed {
		return keymgr.WrappedKey{}, withHint(fmt.Errorf("wrap data key under %s: it would have to be seen on this host: %w", to, ErrInvalid),
			"choose a key of the same KMS, or leave out --no-plaintext")
	}
	wrapper, ok := c.keys.(keymgr.Wrapper)
	if !ok {
		return keymgr.WrappedKey{}, fmt.Errorf("wrap data key under %s: %w", to, keymgr.ErrUnsupported)
	}
	if plain == nil {
		dk, err := c.keys.Decrypt(ctx, w, ec)
		if err != nil {
			return keymgr.WrappedKey{}, fmt.Errorf("unwrap data key: %w", err)
		}
		defer dk.Destroy()
		plain = dk
	}
	return wrapper.Wrap(ctx, to, plain, ec)
}

func schemeOf(uri string) string {
	u, err := keymgr.ParseURI(uri)
	if err != nil {
		return "" // the KMS refuses it
	}
	return u.Scheme
}

// prove makes sure that a new wrapping holds the right key, before anything depends on
// it: it is opened and is asked. A principal that may not decrypt, and one that is not
// to see the key (is is nil), has the KMS open it: it re-encrypts it once more, to no
// use. seen tells that the key was seen.
func (c *Catalogue) prove(ctx context.Context, w keymgr.WrappedKey, ec keymgr.Context, is func(*secret.Buffer) error) (seen bool, err error) {
	if is != nil {
		dk, err := c.keys.Decrypt(ctx, w, ec)
		if err == nil {
			defer dk.Destroy()
			return true, is(dk)
		}
		if !errors.Is(err, keymgr.ErrAccessDenied) {
			return false, fmt.Errorf("open the new wrapping again: %w", err)
		}
	}
	if _, err := c.keys.ReEncrypt(ctx, w, ec, w.URI); err != nil {
		return false, fmt.Errorf("have the KMS open the new wrapping again: %w", err)
	}
	return false, nil
}

// stillOpens refuses a new wrapping that this principal may not open, where it may open
// the old one: the disk could not be attached here any more. Who may open neither is not
// who attaches it.
func (c *Catalogue) stillOpens(ctx context.Context, old, w keymgr.WrappedKey, ec keymgr.Context) error {
	dk, err := c.keys.Decrypt(ctx, old, ec)
	if err != nil {
		return nil
	}
	dk.Destroy()
	if dk, err = c.keys.Decrypt(ctx, w, ec); err == nil {
		dk.Destroy()
		return nil
	}
	return fmt.Errorf("the disk would not open here any more: %w", err)
}
