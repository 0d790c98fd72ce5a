//go:build !pkcs11

package pkcs11

import (
	"encoding/json"
	"errors"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// Built tells whether this build has PKCS#11.
const Built = false

// ErrNotBuilt: the program was built without PKCS#11.
var ErrNotBuilt = errors.New("this build has no PKCS#11 (build with -tags pkcs11)")

// Open fails in this build.
func Open(Config) (keymgr.KMS, error) { return nil, ErrNotBuilt }

// Root is the source of root keys under a key of the HSM; it fails in this build.
type Root struct {
	Config Config
	// Key is the name of the key without its scheme.
	Key string
}

// Wrap fails in this build.
func (Root) Wrap(*secret.Buffer) (json.RawMessage, error) { return nil, ErrNotBuilt }

// Unwrap fails in this build.
func (Root) Unwrap(json.RawMessage) (*secret.Buffer, error) { return nil, ErrNotBuilt }
