package luks

import (
	"errors"
	"fmt"
)

// FormatPending is [Format] for a disk whose key this host does not see: its digest is
// one that no key matches, and its token says so. [Header.BindDigest] puts the right
// one there. Until then no program opens the disk with any key.
func FormatPending(f File, p Params) (*Header, error) {
	p.Token.DigestPending = true
	return format(f, p, func(iterations int) (digest, error) { return pendingDigest(iterations), nil })
}

// DigestPending tells that no key can be proved yet, see [FormatPending].
func (h *Header) DigestPending() bool { return h.meta.digest.pending() }

// BindDigest makes the digest of a header that has none yet, and takes the mark off
// the token. What proves dk is the caller's to know: the KMS has unwrapped it under the
// token's context. dk is read in place. The change reaches the disk by Update.
func (h *Header) BindDigest(dk []byte) error {
	if err := checkKey(dk); err != nil {
		return err
	}
	t, err := h.Token()
	if err != nil {
		return err
	}
	if !t.DigestPending {
		return ErrNotPending
	}
	d, err := newDigest(dk, h.meta.digest.iterations)
	if err == nil && d.pending() {
		err = errors.New("digest of the key is zeros")
	}
	if err != nil {
		return fmt.Errorf("make digest: %w", err)
	}
	if err := h.putDigest(d); err != nil {
		return err
	}
	t.DigestPending = false
	return h.putToken(&t)
}

// putDigest replaces salt and sum; what else the digest says stays.
func (h *Header) putDigest(d digest) error {
	all, err := h.doc.section("digests")
	if err != nil {
		return damaged(err)
	}
	o, err := all.section(h.meta.digestID)
	if err != nil {
		return damaged(err)
	}
	o = o.with("salt", quoteBytes(d.salt)).with("digest", quoteBytes(d.sum[:]))
	h.doc = h.doc.with("digests", all.with(h.meta.digestID, o.encode()).encode())
	meta := *h.meta
	meta.digest = d
	h.meta = &meta
	return nil
}
