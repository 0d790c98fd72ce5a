package local

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sealblk/keymgr"
)

// CreateOptions of a CMK.
type CreateOptions struct {
	Alias       string // alias/NAME, or "" for none
	Description string
	// External keys get their material by ImportKeyMaterial.
	External bool
	// RotateDays is the interval of automatic rotation, 7 to 365 days, 0 for none.
	RotateDays int
	// Protected keys are not deleted until SetDeletionProtection lifts it.
	Protected bool
}

func (o CreateOptions) origin() string {
	if o.External {
		return originExternal
	}
	return originKMS
}

// CreateKey makes a CMK. Only Operator may; nobody may use the key until authorised.
func (k *KMS) CreateKey(ctx context.Context, o CreateOptions) (info keymgr.KeyInfo, err error) {
	wrong := k.checkCreate(o)
	call := k.callNew
	if wrong != nil {
		call = k.call // which is recorded where there is a KMS already
	}
	err = call(ctx, Entry{Operation: "CreateKey", Detail: o.Alias}, func(t *session) error {
		if wrong != nil {
			return wrong
		}
		if err := k.checkFree(t, o.Alias); err != nil {
			return err
		}
		r, err := t.newRecord(k, userPolicy(), o.origin())
		if err != nil {
			return err
		}
		r.Description, r.RotateDays, r.Protected = o.Description, o.RotateDays, o.Protected
		if o.Alias != "" {
			t.index.setAlias(k.region, o.Alias, r.ID)
		}
		info = r.info(t.index.aliasesOf(r))
		t.entry.Key, t.entry.Version = r.ID, r.primary()
		return t.commit(r)
	})
	if wrong != nil {
		err = wrong
	}
	if err != nil {
		return keymgr.KeyInfo{}, err
	}
	return info, nil
}

func (k *KMS) checkCreate(o CreateOptions) error {
	if k.principal != Operator {
		return onlyOperator("create key", k.principal)
	}
	if o.Alias != "" {
		if err := checkNewAlias(o.Alias); err != nil {
			return err
		}
	}
	if err := checkRotation(o.RotateDays, o.origin()); err != nil {
		return err
	}
	return checkDescription(o.Description)
}

// DescribeKey tells what is known of a key. Every principal may ask.
func (k *KMS) DescribeKey(ctx context.Context, key string) (info keymgr.KeyInfo, err error) {
	err = k.look(ctx, "DescribeKey", key, func(t *session, r *record) { info = r.info(t.index.aliasesOf(r)) })
	return info, err
}

// Policy tells who may do what with a key. Every principal may ask.
func (k *KMS) Policy(ctx context.Context, key string) (policy map[string][]Permission, err error) {
	err = k.look(ctx, "GetKeyPolicy", key, func(_ *session, r *record) { policy = r.Policy })
	return policy, err
}

func (k *KMS) look(ctx context.Context, operation, key string, f func(*session, *record)) error {
	return k.call(ctx, Entry{Operation: operation, Key: key}, func(t *session) error {
		r, err := t.find(k.region, key)
		if err != nil {
			return err
		}
		t.entry.Key = r.ID
		if err := r.allow(opDescribe); err != nil {
			return err
		}
		f(t, r)
		return nil
	})
}

// ListKeys describes the keys of every region, oldest first. Keys whose files are
// damaged are missing from the list and named in the error: both results count.
func (k *KMS) ListKeys(ctx context.Context) (list []keymgr.KeyInfo, err error) {
	err = k.call(ctx, Entry{Operation: "ListKeys"}, func(t *session) (err error) {
		list, err = t.list()
		return err
	})
	if errors.Is(err, errNoKMS) {
		return []keymgr.KeyInfo{}, nil
	}
	return list, err
}

func (t *session) list() ([]keymgr.KeyInfo, error) {
	list := []keymgr.KeyInfo{}
	errs := []error{t.checkStrays()}
	for _, id := range t.index.ids() {
		r, err := t.load(id)
		if errors.Is(err, errDestroyed) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, r.info(t.index.aliasesOf(r)))
	}
	slices.SortStableFunc(list, func(a, b keymgr.KeyInfo) int { return a.Created.Compare(b.Created) })
	return list, errors.Join(errs...)
}

// change alters one key. It needs the permission Admin.
func (k *KMS) change(ctx context.Context, e Entry, op operation, edit func(*session, *record) error) error {
	return k.call(ctx, e, func(t *session) error {
		r, err := k.findToChange(t, e.Key, op)
		if err == nil {
			err = edit(t, r)
		}
		if err != nil {
			return err
		}
		return t.commit(r)
	})
}

func (k *KMS) findToChange(t *session, key string, op operation) (*record, error) {
	r, err := t.find(k.region, key)
	if err != nil {
		return nil, err
	}
	t.entry.Key = r.ID
	if err := r.permit(k.principal, Admin); err != nil {
		return nil, err
	}
	return r, r.allow(op)
}

// EnableKey makes a disabled key usable again.
func (k *KMS) EnableKey(ctx context.Context, key string) error {
	return k.change(ctx, Entry{Operation: "EnableKey", Key: key}, opEnable, func(_ *session, r *record) error {
		r.State = keymgr.Enabled
		return nil
	})
}

// DisableKey makes a key unusable until it is enabled.
func (k *KMS) DisableKey(ctx context.Context, key string) error {
	return k.change(ctx, Entry{Operation: "DisableKey", Key: key}, opDisable, func(_ *session, r *record) error {
		r.State = keymgr.Disabled
		return nil
	})
}

// UpdateKeyDescription replaces a key's description.
func (k *KMS) UpdateKeyDescription(ctx context.Context, key, description string) error {
	return k.change(ctx, Entry{Operation: "UpdateKeyDescription", Key: key}, opUpdate, func(_ *session, r *record) error {
		r.Description = description
		return checkDescription(description)
	})
}

// RotateKey adds a version and makes it the primary. Older versions still decrypt.
func (k *KMS) RotateKey(ctx context.Context, key string) (info keymgr.KeyInfo, err error) {
	err = k.change(ctx, Entry{Operation: "RotateKey", Key: key}, opRotate, func(t *session, r *record) error {
		if r.Origin == originExternal {
			return invalid(r.ID, "make another key, and re-wrap the disks under it", "rotate a key of imported material")
		}
		if err := t.addVersion(k, r); err != nil {
			return err
		}
		t.entry.Version = r.primary()
		info = r.info(t.index.aliasesOf(r))
		return nil
	})
	return info, err
}

// Authorize adds permissions of a principal on a key to those that it has.
func (k *KMS) Authorize(ctx context.Context, key, principal string, allow []Permission) error {
	e := Entry{Operation: "Authorize", Key: key, Detail: fmt.Sprint(principal, " ", allow)}
	return k.change(ctx, e, opPolicy, func(_ *session, r *record) error {
		if err := checkPrincipal(principal); err != nil {
			return err
		}
		if err := checkPermissions(allow); err != nil {
			return err
		}
		r.grant(principal, allow)
		return nil
	})
}

// Revoke takes every permission on a key from a principal.
func (k *KMS) Revoke(ctx context.Context, key, principal string) error {
	e := Entry{Operation: "Revoke", Key: key, Detail: principal}
	return k.change(ctx, e, opPolicy, func(_ *session, r *record) error {
		if err := checkPrincipal(principal); err != nil {
			return err
		}
		return r.revoke(principal)
	})
}
