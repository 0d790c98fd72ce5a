package disk

import (
	"context"
	"errors"
	"fmt"

	"sealblk/keymgr"
)

// Check refuses a policy that is none.
func (p KeyLossPolicy) Check() error {
	switch p {
	case KeyLossKeep, KeyLossPause, KeyLossDetach:
		return nil
	}
	return withHint(fmt.Errorf("%w: on-key-loss %q", ErrInvalid, string(p)), "use keep, pause or detach")
}

// KeyState is what is known of the CMK of a disk in use, in one word.
type KeyState string

const (
	KeyUsable          KeyState = "usable"
	KeyDisabled        KeyState = "disabled"
	KeyPendingDeletion KeyState = "pending-deletion"
	KeyPendingImport   KeyState = "pending-import"
	KeyNotFound        KeyState = "not-found"
	KeyAccessDenied    KeyState = "access-denied"
	// KeyUnknown: the KMS does not answer, or does not tell, or not to this host's
	// credentials.
	KeyUnknown KeyState = "unknown"
)

// KeyStateOf makes a word of what came of a look at a CMK: nil means that it is usable.
func KeyStateOf(err error) KeyState {
	if err == nil {
		return KeyUsable
	}
	for _, s := range []struct {
		is    error
		state KeyState
	}{
		{keymgr.ErrCredentials, KeyUnknown}, // before what it is besides
		{keymgr.ErrDisabled, KeyDisabled}, {keymgr.ErrPendingDeletion, KeyPendingDeletion},
		{keymgr.ErrPendingImport, KeyPendingImport}, {keymgr.ErrNotFound, KeyNotFound},
		{keymgr.ErrAccessDenied, KeyAccessDenied},
	} {
		if errors.Is(err, s.is) {
			return s.state
		}
	}
	return KeyUnknown
}

// Lost tells whether a CMK in this state does not unwrap.
func (s KeyState) Lost() bool { return s != KeyUsable && s != KeyUnknown }

// Lock wipes the data key: what is left of the disk is ciphertext. No queue of the
// device may be open. Those that are opened fail all requests until Unlock.
func (d *Disk) Lock() {
	if d.crypt == nil {
		return
	}
	d.crypt.Lock()
	d.keys.Destroy()
	d.keys = nil
}

// Unlock unwraps the data key of a disk that was locked, and proves it. If it fails the
// disk is as locked as before. No queue of the device may be open.
func (d *Disk) Unlock(ctx context.Context) error {
	if d.crypt == nil || d.keys != nil {
		return nil
	}
	if err := d.unlock(ctx); err != nil {
		d.keys.Destroy()
		d.keys = nil
		return fmt.Errorf("disk %s: %w", d.Record.Name, err)
	}
	return nil
}

func (d *Disk) unlock(ctx context.Context) error {
	h, err := readStable(d.proof.file)
	if err != nil {
		return fmt.Errorf("read header again: %w", err)
	}
	t, err := h.Token()
	if err != nil {
		return err
	}
	if h.UUID() != d.proof.uuid || t.Context[keymgr.ContextDisk] != d.Record.Lineage {
		return fmt.Errorf("%w: the container was replaced", ErrMismatch)
	}
	from := d.from
	if t.Escrow == nil { // it was taken out since: the disk has a key of its own again
		from = mainSlot
	}
	dk, err := d.catalogue.unwrap(ctx, h, from)
	if err != nil {
		return err
	}
	defer dk.Destroy()
	x, err := d.expand(dk)
	if err != nil {
		return err
	}
	return d.crypt.Unlock(x)
}
