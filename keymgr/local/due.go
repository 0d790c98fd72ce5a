package local

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"sealblk/keymgr"
)

// Days between automatic rotations.
const (
	MinRotationDays = 7
	MaxRotationDays = 365
)

// due is when something must be done with a key without being asked: destroy it,
// forget imported material, rotate it. It is zero if nothing is planned.
func (r *record) due() time.Time {
	var first time.Time
	for _, when := range []*time.Time{r.destruction(), r.expiry(), r.nextRotation()} {
		if when != nil && (first.IsZero() || when.Before(first)) {
			first = *when
		}
	}
	return first
}

func (r *record) destruction() *time.Time {
	if r.Destroyed != nil {
		return nil
	}
	return r.DeletionDate
}

// expiry is when imported material is to be forgotten.
func (r *record) expiry() *time.Time {
	if len(r.Versions) == 0 {
		return nil
	}
	return r.Versions[len(r.Versions)-1].Expires
}

func (r *record) nextRotation() *time.Time {
	if r.RotateDays == 0 || r.State != keymgr.Enabled {
		return nil
	}
	when := r.Versions[len(r.Versions)-1].Created.AddDate(0, 0, r.RotateDays)
	return &when
}

// plan notes in the index when a key is due.
func (ix *index) plan(r *record) {
	when := r.due()
	if when.IsZero() {
		delete(ix.Due, r.ID)
		return
	}
	if ix.Due == nil {
		ix.Due = map[string]time.Time{}
	}
	ix.Due[r.ID] = when
}

// catchUp does what has become due since the last call. A key whose file is damaged is
// left to the calls that need it.
func (k *KMS) catchUp(t *session) error {
	now := k.clock()
	for _, id := range slices.Sorted(maps.Keys(t.index.Due)) {
		if now.Before(t.index.Due[id]) {
			continue
		}
		r, err := t.load(id)
		if err != nil {
			continue
		}
		e, err := k.doDue(t, r, now)
		if err == nil {
			err = t.write(e, r)
		}
		if err != nil {
			return fmt.Errorf("do what is due for %s: %w", id, err)
		}
	}
	return nil
}

func (k *KMS) doDue(t *session, r *record, now time.Time) (Entry, error) {
	e := k.As(Itself).stamp(Entry{Key: r.ID, Result: ResultOK})
	reached := func(when *time.Time) bool { return when != nil && !now.Before(*when) }
	switch {
	case reached(r.destruction()):
		e.Operation, e.Detail = "DestroyKey", "was due "+r.DeletionDate.Format(time.RFC3339)
		t.index.deleteAliasesOf(r)
		r.destroy(now)
		return e, nil
	case reached(r.expiry()):
		e.Operation, e.Version = "ExpireKeyMaterial", r.primary()
		r.forgetMaterial()
		return e, nil
	}
	e.Operation = "RotateKey"
	err := t.addVersion(k, r)
	e.Version = r.primary()
	return e, err
}

// destroy leaves a record that says that there was a key.
func (r *record) destroy(now time.Time) {
	r.forgetMaterial()
	for i := range r.Versions {
		r.Versions[i].Check = nil
	}
	r.Destroyed = &now
}

// forgetMaterial leaves the means to know imported material again.
func (r *record) forgetMaterial() {
	for i := range r.Versions {
		r.Versions[i].Material, r.Versions[i].Expires = nil, nil
	}
	if r.State != keymgr.PendingDeletion {
		r.State = keymgr.PendingImport
	}
}

func checkRotation(days int, origin string) error {
	switch {
	case days == 0:
		return nil
	case days < MinRotationDays || days > MaxRotationDays:
		return invalid("", "choose 7 to 365 days", "automatic rotation every %d days", days)
	case origin == originExternal:
		return invalid("", "import new material into a new key instead", "automatic rotation of imported material")
	}
	return nil
}

// SetRotation makes a key rotate every so many days, 7 to 365, or never (0). There is
// no daemon: the first call of any kind after the date rotates it.
func (k *KMS) SetRotation(ctx context.Context, key string, days int) error {
	e := Entry{Operation: "SetRotation", Key: key, Detail: fmt.Sprintf("every %d days", days)}
	return k.change(ctx, e, opUpdate, func(_ *session, r *record) error {
		r.RotateDays = days
		return checkRotation(days, r.Origin)
	})
}
