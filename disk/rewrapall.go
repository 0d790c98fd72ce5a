package disk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"sealblk/keymgr"
)

// Outcomes of a re-wrap.
const (
	OutcomeRewrapped = "rewrapped"
	OutcomeCurrent   = "current" // it was up to date
	OutcomeFailed    = "failed"
)

// RewrapAllOptions say which disks to re-wrap.
type RewrapAllOptions struct {
	// From is the URI of a CMK: only what is wrapped under it is wrapped anew, also if
	// that is a key in escrow. Empty: every disk.
	From string
	// To is the URI of the CMK to wrap under; empty is the one that does now.
	To string
	// Started tells how many disks there are; Done tells of each disk. They are called
	// one at a time.
	Started func(disks int)
	Done    func(Outcome)
}

// Outcome is what became of one disk.
type Outcome struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Wrapping
	// Error is the text of Err.
	Error string `json:"error,omitempty"`
	Err   error  `json:"-"`
}

// atOnce is how many disks are re-wrapped at a time: most of it is waiting for the KMS.
const atOnce = 4

// RewrapAll re-wraps many disks, which may be exported meanwhile. One that fails does
// not stop the others. When ctx ends, no further disk is begun, and its error is
// returned. The headers are all the memory there is: called again, it finds what was
// done up to date and goes on with the rest.
func (c *Catalogue) RewrapAll(ctx context.Context, o RewrapAllOptions) error {
	from, lost, err := c.resolve(ctx, o.From)
	if err != nil {
		return err
	}
	disks, err := c.encryptedUnder(from)
	if err != nil {
		return err
	}
	if len(disks) == 0 && lost != nil { // more likely a name with a mistake in it
		return fmt.Errorf("no disk is wrapped under %s: %w", o.From, lost)
	}
	if o.Started != nil {
		o.Started(len(disks))
	}
	todo := make(chan candidate)
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range min(atOnce, len(disks)) {
		workers.Go(func() {
			for d := range todo {
				out := c.rewrapOne(ctx, d, from, o.To)
				if errors.Is(out.Err, context.Canceled) && ctx.Err() != nil {
					continue // it was not refused, it was called off
				}
				mu.Lock()
				if o.Done != nil {
					o.Done(out)
				}
				mu.Unlock()
			}
		})
	}
	for _, d := range disks {
		select {
		case todo <- d:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(todo)
	workers.Wait()
	return ctx.Err()
}

// resolve is the URI by which wrapped keys name a CMK. One that its KMS does not know,
// which lost says, may have disks all the same.
func (c *Catalogue) resolve(ctx context.Context, key string) (uri string, lost, err error) {
	if key == "" {
		return "", nil, nil
	}
	info, err := c.keys.DescribeKey(ctx, key)
	switch {
	case errors.Is(err, keymgr.ErrNotFound):
		lost = err
	case err == nil && info.URI != "":
		return info.URI, nil, nil
	case err != nil && !errors.Is(err, keymgr.ErrAccessDenied) && !errors.Is(err, keymgr.ErrUnsupported):
		return "", nil, err
	}
	u, err := keymgr.ParseURI(key)
	return u.String(), lost, err
}

// candidate is a disk to look at; err says why it cannot be.
type candidate struct {
	name string
	err  error
}

// encryptedUnder finds the disks that a CMK wraps, or all if it is "". One whose record
// is damaged may be among them.
func (c *Catalogue) encryptedUnder(uri string) ([]candidate, error) {
	all, err := names(filepath.Join(c.dir, "disks"), ".json")
	if err != nil {
		return nil, err
	}
	var found []candidate
	for _, name := range all {
		r, err := c.Get(name)
		switch {
		case errors.Is(err, ErrNotFound): // deleted meanwhile
		case err != nil:
			found = append(found, candidate{name, err})
		case r.Encrypted && (uri == "" || slices.Contains(c.keysOf(r), uri)):
			found = append(found, candidate{name: name})
		}
	}
	return found, nil
}

func (c *Catalogue) rewrapOne(ctx context.Context, d candidate, from, to string) Outcome {
	out := Outcome{Name: d.name, Result: OutcomeFailed, Err: d.err}
	var done Rewrapped
	if out.Err == nil {
		done, out.Err = c.rewrapFrom(ctx, d.name, from, to)
	}
	switch {
	case out.Err != nil:
		out.Error = strings.ReplaceAll(out.Err.Error(), "\n", "; ")
		return out
	case done.Changed:
		out.Result = OutcomeRewrapped
	default:
		out.Result = OutcomeCurrent
	}
	out.Wrapping = done.To
	return out
}

// rewrapFrom re-wraps what of a disk is wrapped under a CMK.
func (c *Catalogue) rewrapFrom(ctx context.Context, name, from, to string) (Rewrapped, error) {
	if from == "" {
		return c.Rewrap(ctx, name, RewrapOptions{Key: to})
	}
	r, err := c.Get(name)
	if err != nil {
		return Rewrapped{}, err
	}
	h, err := c.readHeader(r)
	if err != nil {
		return Rewrapped{}, err
	}
	t, err := h.Token()
	if err != nil {
		return Rewrapped{}, err
	}
	job := rewrap{mainSlot, mainSlot, to}
	switch {
	case t.KeyURI == from:
	case t.Escrow != nil && t.Escrow.KeyURI == from:
		job.from, job.to = escrowSlot, escrowSlot
	default: // the record is behind: it has moved already
		job.uri = ""
	}
	return c.rewrap(ctx, name, job)
}
