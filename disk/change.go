package disk

import (
	"context"
	"errors"
	"fmt"
)

// Settings of a disk that can be changed while it exists. Empty ones stay as they are.
type Settings struct {
	Discard   DiscardPolicy
	Zeroes    ZeroesPolicy
	OnKeyLoss KeyLossPolicy
}

// Set changes settings, which the next export of the disk goes by. It may be exported,
// which running tells: OnKeyLoss is a matter of the export that runs too, which is to be
// told.
func (c *Catalogue) Set(ctx context.Context, name string, s Settings) (r Record, running bool, err error) {
	return c.change(ctx, name, func(r *Record) error {
		r.Discard, r.Zeroes = orDefault(s.Discard, r.Discard), orDefault(s.Zeroes, r.Zeroes)
		r.OnKeyLoss = orDefault(s.OnKeyLoss, r.OnKeyLoss)
		return r.validate()
	})
}

// change alters the record of a disk, and what it says something of, while nobody else
// adds, changes or deletes disks. The disk may be exported, which running tells; it is
// ErrInUse while something else has it.
func (c *Catalogue) change(ctx context.Context, name string, alter func(*Record) error) (r Record, running bool, err error) {
	return c.changeAs(ctx, name, "save", alter)
}

// changeAs is change under a name of its own for the tests.
func (c *Catalogue) changeAs(ctx context.Context, name, operation string, alter func(*Record) error) (r Record, running bool, err error) {
	if _, err := c.Get(name); err != nil {
		return Record{}, false, err
	}
	lock, err := c.lockCatalogue(ctx)
	if err != nil {
		return Record{}, false, err
	}
	defer lock.Close()
	l, err := c.acquire(name)
	switch {
	case err == nil:
		defer l.release()
	case errors.Is(err, ErrInUse):
		if _, running = c.Runtime(name); !running {
			return Record{}, false, err
		}
	default:
		return Record{}, false, err
	}
	if r, err = c.Get(name); err != nil {
		return Record{}, running, err
	}
	if err := alter(&r); err != nil {
		return Record{}, running, fmt.Errorf("change disk %s: %w", name, err)
	}
	if err := c.save(r); err != nil {
		return Record{}, running, fmt.Errorf("change disk %s: %w", name, err)
	}
	return r, running, c.did(operation, c.recordPath(name))
}
