//go:build pkcs11

package pkcs11

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"sealblk/keymgr"
)

// Built tells whether this build has PKCS#11.
const Built = true

// errClosed: the KMS was closed.
var errClosed = errors.New("KMS is closed")

// lostCodes are what a token answers that has forgotten us, or is not there.
var lostCodes = []pkcs11.Error{
	pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED,
	pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_USER_NOT_LOGGED_IN,
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID,
	pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_OPERATION_ACTIVE,
}

// lost tells whether a new session may do better.
func lost(err error) bool {
	var code pkcs11.Error
	return errors.As(err, &code) && slices.Contains(lostCodes, code)
}

// meanings are the answers of a token that are no trouble with the connection.
var meanings = []struct {
	codes []pkcs11.Error
	err   error
	hint  string
}{
	{
		[]pkcs11.Error{pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE}, keymgr.ErrCredentials,
		"correct the PIN in pin_file of [kms.pkcs11]; it is not tried again by this process",
	},
	{
		[]pkcs11.Error{pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED}, keymgr.ErrCredentials,
		"have the security officer of the token set a new PIN",
	},
	{
		[]pkcs11.Error{pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED}, keymgr.ErrDisabled,
		"set CKA_ENCRYPT and CKA_DECRYPT of the key to true by the tools of the HSM",
	},
	{
		[]pkcs11.Error{pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_KEY_TYPE_INCONSISTENT}, keymgr.ErrInvalid,
		"the token has to offer AES-GCM (CKM_AES_GCM) for this key",
	},
	{
		[]pkcs11.Error{pkcs11.CKR_SESSION_COUNT, pkcs11.CKR_DEVICE_MEMORY}, keymgr.ErrThrottled,
		"lower sessions in [kms.pkcs11], or close other users of the token",
	},
}

// explain says what an answer of a module means. Errors with a meaning stay as they
// are.
func explain(key, what string, err error) error {
	var code pkcs11.Error
	if err == nil || !errors.As(err, &code) {
		return err
	}
	e := &keymgr.Error{Hint: "see whether the token is there: pkcs11-tool --module MODULE --list-slots", Err: keymgr.ErrUnreachable}
	for _, m := range meanings {
		if slices.Contains(m.codes, code) {
			e.Hint, e.Err = m.hint, m.err
		}
	}
	if key != "" {
		e.Key = uriOf(key)
	}
	e.Code = codeName(code)
	e.Err = fmt.Errorf("%s: %w", what, e.Err)
	return e
}

// codeName is the name of a return value, as the specification has it, or its number.
func codeName(code pkcs11.Error) string {
	_, text, _ := strings.Cut(code.Error(), ": ") // "pkcs11: 0xA0: CKR_PIN_INCORRECT"
	number, name, _ := strings.Cut(text, ": ")
	if name == "" {
		return number
	}
	return name
}
