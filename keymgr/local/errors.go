package local

import (
	"errors"
	"fmt"

	"sealblk/keymgr"
)

// ErrClosed: the KMS was closed.
var ErrClosed = errors.New("KMS is closed")

// errNoKMS tells a folder without a KMS from one that lacks a key.
var errNoKMS = fmt.Errorf("there is no KMS: %w", keymgr.ErrNotFound)

// errDestroyed tells a key that was destroyed from one that never was.
var errDestroyed = fmt.Errorf("key was destroyed: %w", keymgr.ErrNotFound)

func noKMS(dir string) error {
	return &keymgr.Error{
		Code: CodeKeyNotFound,
		Hint: "if disks were encrypted here, restore the folder from a backup; the first key that is made makes a new KMS",
		Err:  fmt.Errorf("open %s: %w", dir, errNoKMS),
	}
}

// Codes that errors carry; those of the reference cloud where it has one.
const (
	CodeDisabled        = "Rejected.Disabled"
	CodePendingDeletion = "Rejected.PendingDeletion"
	CodePendingImport   = "Rejected.PendingImport"
	CodeState           = "Rejected.StateModifiedFailed"
	CodeServiceKey      = "UnsupportedOperation"
	CodeKeyNotFound     = "Forbidden.KeyNotFound"
	CodeAliasNotFound   = "Forbidden.AliasNotFound"
	CodeAliasExists     = "AliasAlreadyExists"
	CodeAccessDenied    = "Forbidden.NoPermission"
	CodeBlob            = "InvalidCiphertext"
	CodeContext         = "InvalidEncryptionContext"
	CodeDamaged         = "DamagedKeyStore"
	CodeLost            = "MissingKeyStore"
	CodeAudit           = "DamagedAuditLog"
	CodeBackup          = "DamagedBackup"
	CodeNotEmpty        = "Rejected.NotEmpty"
	CodeInUse           = "Rejected.KeyInUse"
	CodeProtected       = "Rejected.DeletionProtection"
	CodeMaterial        = "InvalidKeyMaterial"
	CodeOrigin          = "Unsupported.Origin"
	CodeRootLocked      = "RootKeyLocked"
)

// damaged is the error for a stored file that cannot be trusted.
func damaged(path, why string) error {
	return &keymgr.Error{
		Code: CodeDamaged,
		Hint: "restore the whole folder of the KMS from a backup",
		Err:  fmt.Errorf("read %s: %s: %w", path, why, keymgr.ErrCorrupt),
	}
}

func invalid(key, hint, format string, args ...any) error {
	return &keymgr.Error{
		Code: keymgr.CodeInvalid, Key: key, Hint: hint,
		Err: fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), keymgr.ErrInvalid),
	}
}

func badBlob(key, why string) error {
	return &keymgr.Error{
		Code: CodeBlob, Key: key,
		Hint: "the wrapped key was altered or cut; restore the disk's header from a backup",
		Err:  fmt.Errorf("open wrapped key: %s: %w", why, keymgr.ErrCorrupt),
	}
}

func onlyOperator(what, principal string) error {
	return &keymgr.Error{
		Code: CodeAccessDenied, Hint: "this is for the principal " + Operator,
		Err: fmt.Errorf("%s by %s: %w", what, principal, keymgr.ErrAccessDenied),
	}
}

// locked is the error of a source that cannot open the root key as things are.
func locked(why, hint string) error {
	return &keymgr.Error{Code: CodeRootLocked, Hint: hint, Err: fmt.Errorf("%s: %w", why, keymgr.ErrAccessDenied)}
}
