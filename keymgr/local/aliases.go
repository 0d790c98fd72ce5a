package local

import (
	"context"
	"fmt"

	"sealblk/keymgr"
)

// SetAlias gives a key an alias, taking it from the key that has it.
func (k *KMS) SetAlias(ctx context.Context, alias, key string) error {
	return k.setAlias(ctx, "SetAlias", alias, key, func(*session) error { return nil })
}

// CreateAlias gives a key an alias that no key has.
func (k *KMS) CreateAlias(ctx context.Context, alias, key string) error {
	return k.setAlias(ctx, "CreateAlias", alias, key, func(t *session) error { return k.checkFree(t, alias) })
}

// UpdateAlias gives a key an alias that some key has.
func (k *KMS) UpdateAlias(ctx context.Context, alias, key string) error {
	return k.setAlias(ctx, "UpdateAlias", alias, key, func(t *session) error {
		_, err := t.find(k.region, alias)
		return err
	})
}

func (k *KMS) setAlias(ctx context.Context, operation, alias, key string, check func(*session) error) error {
	e := Entry{Operation: operation, Key: key, Detail: alias}
	return k.changeAlias(ctx, e, alias, func(t *session) ([]*record, error) {
		if err := check(t); err != nil {
			return nil, err
		}
		had, taken := t.index.Aliases[k.region][alias]
		op := opNewAlias
		if taken {
			op = opMoveAlias
		}
		r, err := k.findToChange(t, key, op)
		if err != nil {
			return nil, err
		}
		if r.Region != k.region {
			return nil, invalid(key, "work in that region to name its keys", "alias in region %s for a key of region %s", k.region, r.Region)
		}
		changed := []*record{r}
		if taken && had != r.ID {
			before, err := k.findToChange(t, had, opLoseAlias)
			if err != nil {
				return nil, err
			}
			changed = append(changed, before)
			t.entry.Key = r.ID
		}
		t.index.setAlias(k.region, alias, r.ID)
		return changed, nil
	})
}

// DeleteAlias takes an alias away. Its key stays.
func (k *KMS) DeleteAlias(ctx context.Context, alias string) error {
	e := Entry{Operation: "DeleteAlias", Key: alias, Detail: alias}
	return k.changeAlias(ctx, e, alias, func(t *session) ([]*record, error) {
		r, err := k.findToChange(t, alias, opLoseAlias)
		if err != nil {
			return nil, err
		}
		t.index.deleteAlias(k.region, alias)
		return []*record{r}, nil
	})
}

// changeAlias stores what edit changed in the index and the keys concerned.
func (k *KMS) changeAlias(ctx context.Context, e Entry, alias string, edit func(*session) ([]*record, error)) error {
	return k.call(ctx, e, func(t *session) error {
		if err := checkNewAlias(alias); err != nil {
			return err
		}
		changed, err := edit(t)
		if err != nil {
			return err
		}
		return t.commit(changed...)
	})
}

func (k *KMS) checkFree(t *session, alias string) error {
	if id, taken := t.index.Aliases[k.region][alias]; taken {
		return &keymgr.Error{
			Code: CodeAliasExists, Key: alias, Hint: "to move it: sealblk key alias set " + alias + " KEY",
			Err: fmt.Errorf("alias belongs to %s: %w", id, keymgr.ErrInvalid),
		}
	}
	return nil
}
