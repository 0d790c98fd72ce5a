package keymgr

import (
	"context"
	"fmt"

	"sealblk/internal/sigmask"
	"sealblk/keymgr/secret"
)

// Wrapper is a [KMS] that also wraps a data key which it did not make: one that moves
// here from another KMS, or that this KMS keeps in escrow.
type Wrapper interface {
	// Wrap wraps dk under the primary version of key, bound to the context. dk stays
	// the caller's, who destroys it.
	Wrap(ctx context.Context, key string, dk *secret.Buffer, ec Context) (WrappedKey, error)
}

// Event is something that was done to a data key outside its KMS.
type Event struct {
	// Operation is one of the names below.
	Operation string
	// URI names the CMK that wraps the data key.
	URI     string
	Context Context
	// Detail is for people, at most 256 bytes.
	Detail string
}

// Operations of an [Event].
const (
	// EventErase: the wrapped key was destroyed with its disk.
	EventErase = "EraseDataKey"
	// EventEscrow: the disk was opened by the key in escrow.
	EventEscrow = "UseEscrow"
	// EventExport: the data key was handed out, to be kept outside.
	EventExport = "ExportDataKey"
)

// Recorder is a [KMS] whose audit log takes events.
type Recorder interface {
	Record(ctx context.Context, e Event) error
}

var (
	_ Wrapper  = (*Set)(nil)
	_ Recorder = (*Set)(nil)
)

// Wrap wraps a data key under the CMK that a URI names. It is ErrUnsupported where
// that KMS is no [Wrapper].
func (s *Set) Wrap(ctx context.Context, uri string, dk *secret.Buffer, ec Context) (w WrappedKey, err error) {
	if err := CheckDataKey(dk); err != nil {
		return WrappedKey{}, err
	}
	err = s.call(ctx, uri, func(k KMS, u URI) error {
		wrapper, ok := k.(Wrapper)
		if !ok {
			return unsupported(uri, "choose a key of another KMS", "wrap a data key that it did not make")
		}
		return sigmask.Do(func() error {
			w, err = wrapper.Wrap(ctx, u.Key, dk, ec)
			return err
		})
	})
	return w, err
}

// Record puts an event into the audit log of the KMS that its URI names. It is
// ErrUnsupported where that KMS keeps none for others.
func (s *Set) Record(ctx context.Context, e Event) error {
	return s.call(ctx, e.URI, func(k KMS, _ URI) error {
		recorder, ok := k.(Recorder)
		if !ok {
			return unsupported(e.URI, "", "record an event")
		}
		return recorder.Record(ctx, e)
	})
}

func unsupported(uri, hint, what string) error {
	return &Error{Code: CodeUnsupported, Key: uri, Hint: hint, Err: fmt.Errorf("%s: %w", what, ErrUnsupported)}
}
