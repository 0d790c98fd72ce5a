package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/openbao/openbao/api/v2"

	"sealblk/keymgr"
)

// ErrClosed: the KMS was closed.
var ErrClosed = errors.New("KMS is closed")

// Codes of errors; the server has none of its own beside the HTTP status.
const (
	CodeNotFound     = "Vault.NotFound"
	CodeDisabled     = "Vault.Disabled"
	CodeAccessDenied = "Vault.AccessDenied"
	CodeThrottled    = "Vault.Throttled"
	CodeUnreachable  = "Vault.Unreachable"
	CodeBlob         = "Vault.InvalidCiphertext"
	CodeContext      = "Vault.ContextMismatch"
	CodeKeyType      = "Vault.KeyType"
	CodeRefused      = "Vault.Refused"
)

func badBlob(key, why string) error {
	return &keymgr.Error{
		Code: CodeBlob, Key: key, Hint: "the wrapped key was altered or cut; restore the disk's header from a backup",
		Err: fmt.Errorf("open wrapped key: %s: %w", why, keymgr.ErrCorrupt),
	}
}

// failed turns the failure of a call into ours. ctx is the caller's: that it ended is
// not the server's fault.
func (k *KMS) failed(ctx context.Context, key string, err error) error {
	if stopped := ctx.Err(); stopped != nil {
		return fmt.Errorf("call Vault: %w", stopped)
	}
	var answer *api.ResponseError
	if errors.As(err, &answer) {
		return k.answered(key, answer)
	}
	var ours *keymgr.Error
	if errors.As(err, &ours) || errors.Is(err, ErrClosed) {
		return err
	}
	unreachable := k.unreachable(key, short(err))
	if keymgr.Stranger(err) {
		unreachable.Hint = "check kms.vault.ca_file, the certificates that vouch for the server, and kms.vault.server_name"
		unreachable.Err = fmt.Errorf("%w: %w", root(err), keymgr.ErrUnreachable)
	}
	return unreachable
}

func (k *KMS) unreachable(key, why string) *keymgr.Error {
	return &keymgr.Error{
		Code: CodeUnreachable, Key: key,
		Hint: "see that the server at " + k.config.Address + " runs and is unsealed, and that the configuration [kms.vault] is right",
		Err:  fmt.Errorf("%s: %w", why, keymgr.ErrUnreachable),
	}
}

// answered is the meaning of an HTTP status that says no. What the server itself did not
// say tells nothing of the key.
func (k *KMS) answered(key string, answer *api.ResponseError) error {
	said := fmt.Sprintf("HTTP %d: %s", answer.StatusCode, saidBy(answer))
	switch status := answer.StatusCode; {
	case status == http.StatusTooManyRequests:
		return &keymgr.Error{
			Code: CodeThrottled, Key: key, Hint: "try again later, or raise the rate limit quota of the transit engine",
			Err: fmt.Errorf("%s: %w", said, keymgr.ErrThrottled),
		}
	case refused(answer) == nil:
		return k.unreachable(key, said)
	case status == http.StatusForbidden:
		return &keymgr.Error{
			Code: CodeAccessDenied, Key: key,
			Hint: "give the policy of this host's token the paths that the manual names, or renew the token",
			Err:  fmt.Errorf("%s: %w", said, keymgr.ErrAccessDenied),
		}
	case status == http.StatusNotFound:
		return notFound(key, said)
	case status == http.StatusPreconditionFailed || status >= 470 && status < 480 || status >= 500:
		return k.unreachable(key, said)
	}
	return &keymgr.Error{
		Code: CodeRefused, Key: key, Hint: "see the server's log",
		Err: fmt.Errorf("%s: %w", said, keymgr.ErrInvalid),
	}
}

func notFound(key, said string) error {
	return &keymgr.Error{
		Code: CodeNotFound, Key: key, Hint: makeHint(key),
		Err: fmt.Errorf("%s: %w", said, keymgr.ErrNotFound),
	}
}

// makeHint is the command that makes a key as it must be.
func makeHint(key string) string {
	mount, name := "transit", "KEY"
	if n, err := parseName(strings.TrimPrefix(key, Scheme+":")); err == nil {
		mount, name = n.mount, n.key
	}
	return fmt.Sprintf("make the key: bao write -f %s/keys/%s derived=true", mount, name)
}

// saidBy is what the server said, on one line. What it says of itself holds no key.
func saidBy(answer *api.ResponseError) string {
	if answer.RawError || len(answer.Errors) == 0 {
		return strings.ToLower(http.StatusText(answer.StatusCode))
	}
	return oneLine(strings.Join(answer.Errors, ", "))
}

// oneLine makes one line of at most 200 bytes of a text.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}

// short is an error of the network without the URL, which the hint has.
func short(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return oneLine(root(err).Error())
}

// root is the innermost error, whose text does not name the request and its address.
func root(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
