package wire

import (
	"fmt"
	"net/http"

	"sealblk/keymgr"
)

// Codes of failures that a service has no code for.
const (
	CodeNoCredentials = "NoCredentials"
	CodeUnreachable   = "KMSUnreachable"
	CodeReply         = "DamagedReply"
)

// What is wrong with a reply.
var (
	ErrTooLong = fmt.Errorf("read reply: more than %d bytes: %w", MaxReply, keymgr.ErrCorrupt)
	// ErrNoKey: the name of the data key is not there.
	ErrNoKey = fmt.Errorf("read reply: it has no data key: %w", keymgr.ErrCorrupt)
	// ErrSyntax: the name is there, and no string that belongs to it.
	ErrSyntax = fmt.Errorf("read reply: its data key does not parse: %w", keymgr.ErrCorrupt)
	// ErrNotKey: the string is not one data key in base64.
	ErrNotKey = fmt.Errorf("read reply: its data key is not one of %d bytes: %w", keymgr.DataKeySize, keymgr.ErrCorrupt)
)

// ErrEither: the service does not tell a blob of another context from a damaged one. Such
// an error is both.
var ErrEither = fmt.Errorf("%w, or its %w", keymgr.ErrContextMismatch, keymgr.ErrCorrupt)

// HintBlob is what to do about it.
const HintBlob = "the wrapped key belongs to another disk, or was altered: restore the disk's header from a backup"

// Verdict is what an answer that says no means here.
type Verdict struct {
	Err  error
	Hint string
}

// ByStatus judges an answer by its HTTP status alone.
func ByStatus(status int, hintBusy, hintPolicy, hintOther string) Verdict {
	switch {
	case status == http.StatusTooManyRequests:
		return Verdict{keymgr.ErrThrottled, hintBusy}
	case status >= http.StatusInternalServerError:
		return Verdict{keymgr.ErrUnreachable, hintBusy}
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return Verdict{keymgr.ErrAccessDenied, hintPolicy}
	}
	return Verdict{keymgr.ErrInvalid, hintOther}
}

// Damaged is the error for a wrapped key, or a reply about a key, that cannot be right.
func Damaged(key fmt.Stringer, why string) error {
	return &keymgr.Error{Code: CodeReply, Key: key.String(), Hint: HintBlob, Err: fmt.Errorf("%w: %s", keymgr.ErrCorrupt, why)}
}

// Invalid is the error for an argument or a setting that is malformed.
func Invalid(key, hint, format string, args ...any) error {
	return &keymgr.Error{
		Code: keymgr.CodeInvalid, Key: key, Hint: hint,
		Err: fmt.Errorf("%w: %w", keymgr.ErrInvalid, fmt.Errorf(format, args...)),
	}
}
