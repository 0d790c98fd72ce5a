package keymgr

import (
	"errors"
	"fmt"
)

// Every KMS reports its failures as one of these, wrapped with what was tried.
// [ErrThrottled] and [ErrUnreachable] may be tried again; the others are final.
var (
	ErrNotFound        = errors.New("key not found")
	ErrDisabled        = errors.New("key is disabled")
	ErrPendingDeletion = errors.New("key is pending deletion")
	ErrPendingImport   = errors.New("key material is not imported")
	ErrAccessDenied    = errors.New("access to the key is denied")
	ErrContextMismatch = errors.New("wrapped key does not belong to this encryption context")
	// ErrCredentials: what this host proves itself by is missing, expired, or not taken.
	// It is an ErrAccessDenied that says nothing of the key.
	ErrCredentials = fmt.Errorf("the credentials of this host are no good: %w", ErrAccessDenied)
	ErrThrottled   = errors.New("KMS is throttling calls")
	ErrUnreachable = errors.New("KMS cannot be reached")
	// ErrCorrupt: stored key data fails its authentication or does not parse.
	ErrCorrupt = errors.New("key data is damaged")
	// ErrServiceKey: an operation that a service key refuses.
	ErrServiceKey = errors.New("service keys cannot be changed")
	// ErrState: the key's state does not allow the change.
	ErrState = errors.New("key state does not allow this")
	// ErrInvalid: an argument is malformed.
	ErrInvalid = errors.New("invalid argument")
	// ErrUnsupported: this KMS has no such call.
	ErrUnsupported = errors.New("KMS cannot do this")
	// ErrWeakKey: the two halves of a data key are equal.
	ErrWeakKey = errors.New("halves of the data key are equal")
)

// CodeInvalid is the code of every [ErrInvalid].
const CodeInvalid = "InvalidParameter"

// CodeUnsupported is the code of every [ErrUnsupported] that a [Set] reports.
const CodeUnsupported = "UnsupportedOperation"

// Error is a failure with what a user needs to mend it. Code is the KMS's own code
// for it, shown literally ("Rejected.Disabled"); Hint says what to do.
type Error struct {
	Code string
	Key  string
	Hint string
	Err  error
}

func (e *Error) Error() string {
	s := e.Err.Error()
	if e.Key != "" {
		s = e.Key + ": " + s
	}
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }
