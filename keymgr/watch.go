package keymgr

import (
	"context"
	"errors"
	"fmt"
)

// ErrNotWatchable: the caller may not see the state of the key, or the KMS tells none.
var ErrNotWatchable = errors.New("the state of the key cannot be watched")

// Watchable is a KMS that can be asked again and again whether a key may be used. One
// that is not is asked by DescribeKey, which may be metered.
type Watchable interface {
	// Usable fails, as Decrypt would, if what is wrapped under a version of the key
	// cannot be unwrapped, by all that is known of the key alone. A version that is not
	// known is empty. It is no use of the key: it gives the caller nothing, and is not
	// recorded.
	Usable(ctx context.Context, key, version string) error
	// Stamp changes with everything that Usable goes by, but for the passing of time.
	// It costs next to nothing. Empty: it is not known, ask Usable.
	Stamp(key string) string
}

// Versioned is a KMS that may unwrap by one version of a key and not by another.
type Versioned interface {
	// CheckVersion fails, as Decrypt would, if what is wrapped under a version of the key
	// cannot be unwrapped, by all that is known of the key alone.
	CheckVersion(ctx context.Context, key, version string) error
}

// losses are the errors that say that a key is lost, for the time being or for good.
var losses = []error{ErrDisabled, ErrPendingDeletion, ErrPendingImport, ErrNotFound, ErrAccessDenied}

// IsLoss tells whether an error says that a key is lost. That a KMS does not answer, or
// not to these credentials, says nothing of its keys.
func IsLoss(err error) bool {
	if errors.Is(err, ErrCredentials) {
		return false
	}
	for _, loss := range losses {
		if errors.Is(err, loss) {
			return true
		}
	}
	return false
}

// CheckUsable asks a KMS whether what is wrapped under a version of a key, empty if that
// is not known, can be unwrapped: by Usable or CheckVersion where it has one, else by
// DescribeKey. The caller that is refused the latter two gets ErrNotWatchable beside the
// refusal.
func CheckUsable(ctx context.Context, k describer, key, version string) error {
	if w, ok := k.(Watchable); ok {
		return w.Usable(ctx, key, version)
	}
	err := checkState(ctx, k, key, version)
	switch {
	case errors.Is(err, ErrCredentials):
		return err
	case errors.Is(err, ErrAccessDenied), errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("%w: %w", ErrNotWatchable, err)
	}
	return err
}

func checkState(ctx context.Context, k describer, key, version string) error {
	if v, ok := k.(Versioned); ok && version != "" {
		return v.CheckVersion(ctx, key, version)
	}
	info, err := k.DescribeKey(ctx, key)
	if err != nil {
		return err
	}
	return info.usable(key)
}

// describer is a KMS of which no more is needed.
type describer interface {
	DescribeKey(ctx context.Context, key string) (KeyInfo, error)
}

// Usable tells whether what is wrapped under a version of a URI's key can be unwrapped. It
// asks once: who watches a key asks again.
func (s *Set) Usable(ctx context.Context, uri, version string) error {
	m, u, err := s.find(uri)
	if err != nil {
		return err
	}
	k, err := m.get(ctx)
	if err != nil {
		return err
	}
	return CheckUsable(ctx, k, u.Key, version)
}

// usable makes an error of every state in which a key does not unwrap.
func (i *KeyInfo) usable(uri string) error {
	switch i.State {
	case Enabled:
		return nil
	case Disabled:
		return &Error{Key: uri, Err: ErrDisabled}
	case PendingDeletion:
		return &Error{Key: uri, Err: ErrPendingDeletion}
	case PendingImport:
		return &Error{Key: uri, Err: ErrPendingImport}
	}
	return fmt.Errorf("%w: %s: state %q", ErrNotWatchable, uri, i.State)
}

// Stamp is that of the URI's KMS, if that has been used and has any.
func (s *Set) Stamp(uri string) string {
	m, u, err := s.find(uri)
	if err != nil {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if w, ok := m.kms.(Watchable); ok {
		return w.Stamp(u.Key)
	}
	return ""
}

var _ Watchable = (*Set)(nil)
