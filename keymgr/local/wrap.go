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

// Wrap wraps a data key that was made elsewhere under the primary version of a CMK:
// the call Encrypt of the state table. It needs the permission Generate: whoever has
// it may make blobs of the key.
func (k *KMS) Wrap(ctx context.Context, key string, dk *secret.Buffer, ec keymgr.Context) (w keymgr.WrappedKey, err error) {
	if err := keymgr.CheckDataKey(dk); err != nil {
		return keymgr.WrappedKey{}, err
	}
	err = k.callNew(ctx, Entry{Operation: "Encrypt", Key: key}, func(t *session) error {
		digest, err := t.bind(ec)
		if err != nil {
			return err
		}
		r, err := k.findForUse(t, key, Generate)
		if err != nil {
			return err
		}
		t.entry.Version = r.primary()
		w, err = t.wrap(r, dk, digest)
		return err
	})
	if err != nil {
		return keymgr.WrappedKey{}, err
	}
	return w, nil
}

// Record puts an event into the audit log. The key need not be usable, nor exist any
// more. Every principal may, in its own name; the events are those of package keymgr,
// so that none looks like a call of the KMS.
func (k *KMS) Record(ctx context.Context, e keymgr.Event) error {
	if !slices.Contains([]string{keymgr.EventErase, keymgr.EventEscrow}, e.Operation) {
		return invalid("", "", "event %q", clipped(e.Operation))
	}
	uri, err := keymgr.ParseURI(e.URI)
	if err != nil {
		return err
	}
	entry := Entry{Operation: e.Operation, Key: uri.Key, Detail: clipped(e.Detail)}
	return k.call(ctx, entry, func(t *session) error {
		_, err := t.bind(e.Context)
		return err
	})
}
