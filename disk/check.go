package disk

import (
	"context"
	"fmt"

	"sealblk/blockdev/luks"
)

// Results of a check.
const (
	OK      = "ok"
	Warning = "warning"
	Failed  = "failed"
)

// Finding is one result of a check.
type Finding struct {
	// Check names what was looked at: record, header, backing file, key.
	Check string `json:"check"`
	// Result is OK, Warning or Failed.
	Result string `json:"result"`
	Detail string `json:"detail"`
	// Err is the failure behind a failed check.
	Err error `json:"-"`
}

// Check looks at everything that must be right before a disk is served, and changes
// nothing. It takes no lock: a running disk may be checked.
func (c *Catalogue) Check(ctx context.Context, name string) ([]Finding, error) {
	r, err := c.Get(name)
	if err != nil {
		return nil, err
	}
	found := []Finding{{Check: "record", Result: OK, Detail: c.recordPath(name)}}
	if r.GrowingTo != 0 {
		found = []Finding{{Check: "record", Result: Warning,
			Detail: fmt.Sprintf("a resize to %d bytes was interrupted: the same resize finishes it; till then the disk has %d bytes, or the new size", r.GrowingTo, r.SizeBytes)}}
	}
	if r.RewrappingTo != "" {
		found = append(found, Finding{Check: "record", Result: Warning,
			Detail: fmt.Sprintf("a re-wrap under %s is under way, or was interrupted: then another re-wrap or the next export finishes it", r.RewrappingTo)})
	}
	if r.Encrypted {
		return append(found, c.checkEncrypted(ctx, r)...), nil
	}
	return append(found, c.checkPlain(r)...), nil
}

func (c *Catalogue) checkPlain(r Record) []Finding {
	b, err := parseBackend(r.Backend)
	if err == nil && b.kind == "file" {
		if _, err = extent(r, b.path, nil); err == nil {
			err = RefuseOurs(b.path)
		}
	}
	return []Finding{finding("backing file", err, b.where())}
}

func (c *Catalogue) checkEncrypted(ctx context.Context, r Record) []Finding {
	h, err := c.readHeader(r)
	if err != nil {
		return []Finding{finding("header", err, "")}
	}
	found := []Finding{finding("header", nil, fmt.Sprintf("LUKS2, both copies read, sequence %d", h.Seqid()))}
	for i, w := range h.Warnings() {
		if i == 0 {
			found = nil
		}
		found = append(found, Finding{Check: "header", Result: Warning, Detail: w})
	}
	if size, _ := h.Size(); size > r.SizeBytes && r.GrowingTo == 0 {
		found = append(found, Finding{Check: "header", Result: Warning,
			Detail: fmt.Sprintf("the disk was resized to %d bytes through another state directory; the record says %d until the next export", size, r.SizeBytes)})
	}
	if b, err := parseBackend(r.Backend); err == nil && b.kind == "file" {
		_, err := extent(r, b.path, h)
		found = append(found, finding("backing file", err, b.path))
	}
	return append(found, c.checkKeys(ctx, r, h)...)
}

func (c *Catalogue) checkKeys(ctx context.Context, r Record, h *luks.Header) []Finding {
	t, err := h.Token()
	if err != nil {
		return []Finding{finding("key", err, "")}
	}
	if h.DigestPending() {
		return []Finding{c.checkPending(ctx, r, h, t)}
	}
	dk, err := c.unwrap(ctx, h, mainSlot)
	dk.Destroy()
	found := []Finding{finding("key", err, t.KeyURI+" unwraps the data key and the header's digest confirms it")}
	if t.Escrow == nil {
		return found
	}
	dk, err = c.unwrap(ctx, h, escrowSlot)
	dk.Destroy()
	escrow := finding("key in escrow", err, t.Escrow.KeyURI+" unwraps the data key and the header's digest confirms it")
	if err != nil { // the disk is served without it
		escrow.Result, escrow.Err = Warning, nil
	} else if t.Escrow.KeyURI == t.KeyURI {
		escrow.Result, escrow.Detail = Warning, t.KeyURI+" is the disk's own key too, and is lost with it: choose another: sealblk disk set NAME --escrow-key KEY"
	}
	return append(found, escrow)
}

// checkPending looks at a disk that nobody has opened yet.
func (c *Catalogue) checkPending(ctx context.Context, r Record, h *luks.Header, t luks.Token) Finding {
	path, err := c.storeFile(r)
	if err == nil {
		err = c.proveForeign(ctx, r, path, h, mainSlot)
	}
	return finding("key", err, t.KeyURI+" unwraps the data key; the header's digest is made when the disk is first opened")
}

func finding(check string, err error, ok string) Finding {
	if err != nil {
		return Finding{Check: check, Result: Failed, Detail: err.Error(), Err: err}
	}
	return Finding{Check: check, Result: OK, Detail: ok}
}
