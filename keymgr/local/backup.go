package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

const opBackup = "Backup" // in the audit log

// backupMark remembers the last backup.
type backupMark struct {
	Time time.Time `json:"time"`
	// Materials is how many the KMS had made by then.
	Materials uint64 `json:"materials"`
}

// BackupStatus tells what would be lost with the host.
type BackupStatus struct {
	Keys uint64 `json:"keys"`
	// Last is nil when no backup was made.
	Last *time.Time `json:"last"`
	// Unsaved counts the keys and versions that were made since.
	Unsaved uint64 `json:"unsaved"`
}

// Needed tells whether there is something to lose.
func (s BackupStatus) Needed() bool { return s.Keys > 0 && (s.Last == nil || s.Unsaved > 0) }

// BackupStatus tells whether a backup is needed. It is not recorded.
func (k *KMS) BackupStatus(ctx context.Context) (BackupStatus, error) {
	t, err := k.store.begin(ctx)
	if errors.Is(err, errNoKMS) {
		return BackupStatus{}, nil
	}
	if err != nil {
		return BackupStatus{}, err
	}
	defer t.end()
	s := BackupStatus{Keys: uint64(len(t.index.Keys)), Unsaved: t.index.Materials}
	if b := t.index.Backup; b != nil {
		s.Last, s.Unsaved = &b.Time, t.index.Materials-b.Materials
	}
	return s, nil
}

// Backup seals the whole KMS with its root key under a passphrase. It gives save a
// function that writes the backup in pieces; save must make that durable: only then does
// the KMS count as saved. Only Operator may. The KMS is held while its keys are read, not
// while the backup is written, which takes the longer the longer the audit log is: calls
// go on, and what they change is not in the backup. A damaged audit log does not keep the
// keys from being saved: the backup holds it as it is, and Options.Warn is told.
func (k *KMS) Backup(ctx context.Context, passphrase *secret.Buffer, save func(write func(io.Writer) error) error) error {
	salt, err := secret.Random(backupRoot - backupSalt) // no secret, but at hand
	if err != nil {
		return fmt.Errorf("make salt: %w", err)
	}
	defer salt.Destroy()
	key, err := usualStretching.stretch(passphrase, salt.Bytes())
	if err != nil {
		return err
	}
	defer key.Destroy()
	taken, err := k.takeSnapshot(ctx, key, backupHeader(usualStretching, salt.Bytes()))
	if err != nil {
		return err
	}
	defer taken.log.close()
	return k.recordBackup(ctx, taken, k.saveSnapshot(ctx, taken, key, save))
}

// takeSnapshot leaves the record of a backup to recordBackup, unless it fails.
func (k *KMS) takeSnapshot(ctx context.Context, key *secret.Buffer, header []byte) (taken *snapshot, err error) {
	err = k.call(ctx, Entry{Operation: opBackup}, func(t *session) error {
		if k.principal != Operator {
			return onlyOperator("back up the KMS", k.principal)
		}
		if taken, err = t.snapshot(key, header); err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		t.recordLater()
		return nil
	})
	return taken, err
}

func (k *KMS) saveSnapshot(ctx context.Context, taken *snapshot, key *secret.Buffer, save func(func(io.Writer) error) error) error {
	if err := k.checkAudit(ctx, taken.log); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	err := save(func(w io.Writer) error { return taken.write(ctx, w, key) })
	if err != nil {
		return fmt.Errorf("save backup: %w", err)
	}
	return nil
}

// recordBackup records how a backup ended, also one that its caller gave up.
func (k *KMS) recordBackup(ctx context.Context, taken *snapshot, failure error) error {
	err := k.call(context.WithoutCancel(ctx), Entry{Operation: opBackup}, func(t *session) error {
		if failure != nil {
			return failure
		}
		// More than there are would be an index that contradicts itself.
		t.index.Backup = &backupMark{k.clock(), min(taken.materials, t.index.Materials)}
		return t.commit()
	})
	if failure != nil && !errors.Is(err, failure) { // the call did not begin
		return errors.Join(failure, err)
	}
	return err
}

// checkAudit warns of a damaged audit log.
func (k *KMS) checkAudit(ctx context.Context, log *logView) error {
	err := log.walk(ctx, func(Entry) {})
	var e *keymgr.Error
	if !errors.As(err, &e) || e.Code != CodeAudit {
		return err
	}
	if k.warn != nil {
		k.warn(err)
	}
	return nil
}

// checkKeys opens all that keys need: records and their material.
func (t *session) checkKeys() error {
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
		for _, v := range r.Versions {
			if len(v.Material) == 0 {
				continue
			}
			m, err := t.material(r, v.Number)
			m.Destroy()
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
