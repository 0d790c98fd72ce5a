package main

import (
	"encoding/json"

	"sealblk/keymgr/local"
	"sealblk/keymgr/secret"
)

// patient is a source of the root key that may have to wait for a pipe, until the user
// gives up.
type patient struct{ local.RootSource }

func (p patient) Wrap(root *secret.Buffer) (json.RawMessage, error) {
	own, err := root.Clone() // the source may work on it when the user has given up
	if err != nil {
		return nil, err
	}
	return awaited(rootPassphrase.ctx, func() (json.RawMessage, error) {
		defer own.Destroy()
		return p.RootSource.Wrap(own)
	})
}

func (p patient) Unwrap(wrapped json.RawMessage) (*secret.Buffer, error) {
	return awaited(rootPassphrase.ctx, func() (*secret.Buffer, error) { return p.RootSource.Unwrap(wrapped) })
}
