package local

import (
	"context"
	"slices"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

var (
	_ keymgr.Wrapper  = (*KMS)(nil)
	_ keymgr.Recorder = (*KMS)(nil)
)

// Wrap wraps a data key that was made elsewhere under the primary version of a CMK. It
// is Encrypt for data keys.
func (k *KMS) Wrap(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (keymgr.WrappedKey, error) {
	if err := keymgr.CheckDataKey(dk); err != nil {
		return keymgr.WrappedKey{}, err
	}
	return k.Encrypt(ctx, key, dk, ec)
}

// Record puts an event into the audit log. The key need not be usable, nor exist any
// more. Every principal may, in its own name; the events are those of package keymgr,
// so that none looks like a call of the KMS.
func (k *KMS) Record(ctx context.Context, e keymgr.Event) error {
	if !slices.Contains([]string{keymgr.EventErase, keymgr.EventEscrow, keymgr.EventExport}, e.Operation) {
		return invalid("", "", "event %q", clipped(e.Operation))
	}
	uri, err := keymgr.ParseURI(e.URI)
	if err != nil {
		return err
	}
	entry := Entry{Operation: e.Operation, Key: uri.Key, Detail: e.Detail}
	return k.call(ctx, entry, func(t *session) error {
		_, err := t.bind(e.Context)
		return err
	})
}
