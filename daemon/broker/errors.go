package broker

import (
	"context"
	"errors"

	"sealblk/keymgr"
)

var (
	// ErrGone: the broker process has ended.
	ErrGone = errors.New("the broker process has ended")
	// ErrSealed: the request came after Seal.
	ErrSealed = errors.New("the broker decrypts nothing but the disk's own key after the worker is sealed")
	// errNoKey: nothing was unwrapped.
	errNoKey = errors.New("there is no key to watch")
	// errNotStarted: there is no worker at the other end.
	errNotStarted = errors.New("sealblk export starts it, nobody else")
	// errHangs: it has not ended in time.
	errHangs = errors.New("the broker process does not end")
	// errRequest: the worker said something that no worker says.
	errRequest = errors.New("unknown request")
)

// sentinels are the errors that callers compare with, by their place in this list.
// Both sides are the same program.
var sentinels = []error{
	keymgr.ErrNotFound, keymgr.ErrDisabled, keymgr.ErrPendingDeletion, keymgr.ErrPendingImport,
	keymgr.ErrAccessDenied, keymgr.ErrCredentials, keymgr.ErrContextMismatch, keymgr.ErrThrottled, keymgr.ErrUnreachable,
	keymgr.ErrCorrupt, keymgr.ErrServiceKey, keymgr.ErrState, keymgr.ErrInvalid, keymgr.ErrWeakKey,
	context.Canceled, context.DeadlineExceeded, ErrSealed, errRequest,
}

// failure is an error on its way between the processes.
type failure struct {
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
	// Code is the KMS's own; IsKMS tells a KMS error without one.
	Code     string `json:"code,omitempty"`
	IsKMS    bool   `json:"is_kms,omitempty"`
	Sentinel []int  `json:"sentinels,omitempty"`
}

// pack takes apart what a caller may ask of an error.
func pack(err error) *failure {
	f := &failure{Text: err.Error()}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		f.Hint = hinted.Hint()
	}
	var kms *keymgr.Error
	if errors.As(err, &kms) {
		f.IsKMS, f.Code = true, kms.Code
		if f.Hint == "" {
			f.Hint = kms.Hint
		}
	}
	for i, s := range sentinels {
		if errors.Is(err, s) {
			f.Sentinel = append(f.Sentinel, i)
		}
	}
	return f
}

// remote is an error of the other process.
type remote struct {
	text  string
	inner []error
}

func (r *remote) Error() string   { return r.text }
func (r *remote) Unwrap() []error { return r.inner }

func (f *failure) unpack() error {
	r := &remote{text: f.Text}
	cause := errors.New(f.Text)
	for _, i := range f.Sentinel {
		if i >= 0 && i < len(sentinels) {
			r.inner = append(r.inner, sentinels[i])
		}
	}
	if f.IsKMS || f.Hint != "" {
		r.inner = append(r.inner, &keymgr.Error{Code: f.Code, Hint: f.Hint, Err: cause})
	}
	return r
}
