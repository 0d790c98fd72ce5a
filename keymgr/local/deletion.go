package local

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sealblk/keymgr"
)

// Days ahead that a deletion can be scheduled.
const (
	MinDeletionDays = 7
	MaxDeletionDays = 366
)

// ScheduleKeyDeletion makes a key unusable now, to be deleted after some days, 7 to
// 366. Until then CancelKeyDeletion brings it back. A key with users (see Options) is
// deleted by force only, a protected one not at all. The first call of any kind after
// the date destroys the key.
func (k *KMS) ScheduleKeyDeletion(ctx context.Context, key string, days int, force bool) (when time.Time, err error) {
	e := Entry{Operation: "ScheduleKeyDeletion", Key: key, Detail: fmt.Sprintf("in %d days", days)}
	if force {
		e.Detail += " by force"
	}
	err = k.change(ctx, e, opSchedule, func(_ *session, r *record) error {
		if days < MinDeletionDays || days > MaxDeletionDays {
			return invalid(key, "choose 7 to 366 days", "schedule deletion in %d days", days)
		}
		if err := k.mayDelete(ctx, r, force); err != nil {
			return err
		}
		when = k.clock().AddDate(0, 0, days)
		r.State, r.DeletionDate = keymgr.PendingDeletion, &when
		return nil
	})
	return when, err
}

// mayDelete keeps a key that is protected, or needed.
func (k *KMS) mayDelete(ctx context.Context, r *record, force bool) error {
	if r.Protected {
		return &keymgr.Error{
			Code: CodeProtected, Key: r.ID, Hint: "sealblk key set " + r.ID + " --deletion-protection off",
			Err: fmt.Errorf("deletion protection is on: %w", keymgr.ErrState),
		}
	}
	if force || k.users == nil {
		return nil
	}
	users, err := k.users(ctx, keymgr.SchemeLocal+":"+r.ID)
	if err != nil {
		return fmt.Errorf("look who needs the key: %w", err)
	}
	if len(users) == 0 {
		return nil
	}
	return &keymgr.Error{
		Code: CodeInUse, Key: r.ID, Hint: "put them under another key (sealblk disk rewrap --all --key-from " + r.ID + " --key KEY), or delete them, or add --force to lose their data with the key",
		Err: fmt.Errorf("it wraps the data keys of %s: %w", strings.Join(users, ", "), keymgr.ErrState),
	}
}

// SetDeletionProtection turns a key's protection from deletion on or off.
func (k *KMS) SetDeletionProtection(ctx context.Context, key string, on bool) error {
	e := Entry{Operation: "SetDeletionProtection", Key: key, Detail: fmt.Sprint(on)}
	return k.change(ctx, e, opUpdate, func(_ *session, r *record) error {
		r.Protected = on
		return nil
	})
}

// CancelKeyDeletion enables a key whose deletion was scheduled, until the date of
// the deletion. A key that waits for its material waits again.
func (k *KMS) CancelKeyDeletion(ctx context.Context, key string) error {
	return k.change(ctx, Entry{Operation: "CancelKeyDeletion", Key: key}, opCancel, func(_ *session, r *record) error {
		if !r.hasMaterial() {
			r.State = keymgr.PendingImport // there is nothing to enable
		} else {
			r.State = keymgr.Enabled
		}
		r.DeletionDate = nil
		return nil
	})
}
