package local

import (
	"encoding/json"
	"fmt"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// RootPassphrase is the source of a root key under a passphrase, stretched by Argon2id.
const RootPassphrase = "passphrase"

// PassphraseSource is the source RootPassphrase.
type PassphraseSource struct {
	// Ask returns the passphrase, which the source destroys; a new one if it is to wrap.
	Ask func(new bool) (*secret.Buffer, error)
}

type passphraseRoot struct {
	Passes  uint32 `json:"passes"`
	Memory  uint32 `json:"memory_kib"`
	Threads uint32 `json:"threads"`
	Salt    []byte `json:"salt"`
	Key     []byte `json:"key"`
}

const saltSize = backupRoot - backupSalt

func (p *passphraseRoot) stretching() stretching { return stretching{p.Passes, p.Memory, p.Threads} }

// aad binds the wrapped key to how it was wrapped.
func (p *passphraseRoot) aad() []byte {
	return append([]byte("sealblk KMS root passphrase 1\x00"), backupHeader(p.stretching(), p.Salt)...)
}

// Wrap asks for a new passphrase, of at least MinPassphrase bytes.
func (s PassphraseSource) Wrap(root *secret.Buffer) (json.RawMessage, error) {
	salt, err := secret.Random(saltSize) // no secret, but at hand
	if err != nil {
		return nil, fmt.Errorf("make salt: %w", err)
	}
	defer salt.Destroy()
	usual := usualStretching
	p := passphraseRoot{Passes: usual.passes, Memory: usual.memory, Threads: usual.threads, Salt: append([]byte(nil), salt.Bytes()...)}
	key, err := s.key(&p, true)
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	if p.Key, err = seal(key, root.Bytes(), p.aad()); err != nil {
		return nil, err
	}
	return json.Marshal(p)
}

// Unwrap asks for the passphrase.
func (s PassphraseSource) Unwrap(wrapped json.RawMessage) (*secret.Buffer, error) {
	var p passphraseRoot
	if err := decodeStrictly(wrapped, &p); err != nil || len(p.Salt) != saltSize || !p.stretching().allowed() {
		return nil, fmt.Errorf("parse wrapped root key: %w", keymgr.ErrCorrupt)
	}
	key, err := s.key(&p, false)
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	root, err := unsealRoot(key, p.Key, p.aad())
	if err == nil && root == nil {
		err = locked("the passphrase is wrong", "try again; if it is lost, restore the KMS from a backup")
	}
	return root, err
}

func (s PassphraseSource) key(p *passphraseRoot, new bool) (*secret.Buffer, error) {
	passphrase, err := s.Ask(new)
	if err != nil {
		return nil, err
	}
	defer passphrase.Destroy()
	return p.stretching().stretch(passphrase, p.Salt)
}
