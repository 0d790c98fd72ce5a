package keymgr

import (
	"context"
	"time"

	"sealblk/keymgr/secret"
)

// DataKeySize is the size of every data key in bytes: two AES-256 keys, as XTS
// takes them.
const DataKeySize = 64

// ContextDisk is the encryption-context entry that binds a data key to a disk. Its
// value is the id of the disk's lineage: snapshots and clones that share the DK
// share it.
const ContextDisk = "sealblk:disk"

// Context is an encryption context.
type Context map[string]string

// WrappedKey is a data key under a CMK, as a disk stores it. It is not secret.
type WrappedKey struct {
	// URI names the CMK: "local:<key-id>", "vault:<mount>/<key>", ...
	URI string
	// Version of the CMK that wraps it.
	Version string
	// Blob is the KMS's own format.
	Blob []byte
}

// State is the state of a CMK.
type State string

const (
	Enabled         State = "Enabled"
	Disabled        State = "Disabled"
	PendingDeletion State = "PendingDeletion"
	PendingImport   State = "PendingImport"
)

// KeyInfo describes a CMK.
type KeyInfo struct {
	URI            string    `json:"uri"`
	KeyID          string    `json:"key_id"`
	Aliases        []string  `json:"aliases"`
	State          State     `json:"state"`
	Origin         string    `json:"origin"`
	Description    string    `json:"description"`
	Service        bool      `json:"service"`
	PrimaryVersion string    `json:"primary_version"`
	Versions       int       `json:"versions"`
	Created        time.Time `json:"created"`
	// Region is the region of a key of the embedded KMS.
	Region string `json:"region,omitempty"`
	// DeletionDate is set in the state PendingDeletion.
	DeletionDate *time.Time `json:"deletion_date,omitempty"`
	// DeletionProtection: the deletion cannot be scheduled.
	DeletionProtection bool `json:"deletion_protection"`
	// RotationDays is the interval of automatic rotation, 0 for none.
	RotationDays int        `json:"rotation_days"`
	NextRotation *time.Time `json:"next_rotation,omitempty"`
	// MaterialExpires is when imported material is forgotten.
	MaterialExpires *time.Time `json:"material_expires,omitempty"`
}

// KMS is one key management service, as the disk service uses it. A key argument
// is the part of the key's URI behind the scheme: an id or an alias. Methods may
// be called from any goroutine.
type KMS interface {
	// GenerateDataKey makes a data key of DataKeySize bytes whose halves differ, and
	// returns it in locked memory, which the caller destroys, and wrapped.
	GenerateDataKey(ctx context.Context, key string, ec Context) (*secret.Buffer, WrappedKey, error)
	// GenerateDataKeyWithoutPlaintext is the same for a caller that must not see the
	// data key.
	GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, ec Context) (WrappedKey, error)
	// Decrypt unwraps a data key into locked memory, which the caller destroys.
	Decrypt(ctx context.Context, w WrappedKey, ec Context) (*secret.Buffer, error)
	// ReEncrypt wraps the same data key under newKey, inside the KMS.
	ReEncrypt(ctx context.Context, w WrappedKey, ec Context, newKey string) (WrappedKey, error)
	// DescribeKey tells what the KMS knows of a key.
	DescribeKey(ctx context.Context, key string) (KeyInfo, error)
}
