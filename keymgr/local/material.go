package local

import (
	"context"
	"fmt"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

// MaterialSize is the size of imported key material in bytes.
const MaterialSize = keySize

// checkAAD binds the fingerprint of imported material to its key.
func checkAAD(id string) []byte { return append([]byte("sealblk KMS material check 1\x00"), id...) }

// ImportKeyMaterial gives a key of external origin its material, MaterialSize bytes,
// which stays the caller's to destroy. A zero expiry is never; when it has passed the
// material is forgotten. Material that comes back must be the same that was there.
func (k *KMS) ImportKeyMaterial(ctx context.Context, key string, material *secret.Buffer, expires time.Time) error {
	e := Entry{Operation: "ImportKeyMaterial", Key: key}
	if !expires.IsZero() {
		e.Detail = "expires " + expires.UTC().Format(time.RFC3339)
	}
	return k.change(ctx, e, opImport, func(t *session, r *record) error {
		if err := k.checkImport(r, material, expires); err != nil {
			return err
		}
		v, err := t.imported(k, r, material)
		if err != nil {
			return err
		}
		if !expires.IsZero() {
			when := expires.UTC().Truncate(time.Second)
			v.Expires = &when
		}
		r.Versions = []version{v}
		if r.State == keymgr.PendingImport {
			r.State = keymgr.Enabled
		}
		t.entry.Version = r.primary()
		return nil
	})
}

// PrepareImport tells whether the principal may import material into a key, before
// the material is sent.
func (k *KMS) PrepareImport(ctx context.Context, key string) (info keymgr.KeyInfo, err error) {
	err = k.call(ctx, Entry{Operation: "GetParametersForImport", Key: key}, func(t *session) error {
		r, err := k.findToChange(t, key, opParameters)
		if err != nil {
			return err
		}
		info = r.info(t.index.aliasesOf(r))
		return r.checkExternal()
	})
	return info, err
}

func (r *record) checkExternal() error {
	if r.Origin == originExternal {
		return nil
	}
	return &keymgr.Error{
		Code: CodeOrigin, Key: r.ID, Hint: "make a key for it: sealblk key create --origin external",
		Err: fmt.Errorf("import material into a key made here: %w", keymgr.ErrInvalid),
	}
}

func (k *KMS) checkImport(r *record, material *secret.Buffer, expires time.Time) error {
	if err := r.checkExternal(); err != nil {
		return err
	}
	switch {
	case material.Len() != MaterialSize:
		return invalid(r.ID, "material is 32 random bytes, as from: head -c 32 /dev/random", "import material of %d bytes", material.Len())
	case !expires.IsZero() && !expires.After(k.clock()):
		return invalid(r.ID, "choose a later date", "import material that has expired")
	}
	return nil
}

// imported is the version that holds imported material.
func (t *session) imported(k *KMS, r *record, material *secret.Buffer) (version, error) {
	v := version{Number: 1, Created: k.clock()}
	if len(r.Versions) > 0 {
		v = r.Versions[0]
		if err := t.checkSame(r, material); err != nil {
			return version{}, err
		}
	} else {
		t.index.Materials++
		proof, err := seal(material, make([]byte, 16), checkAAD(r.ID))
		if err == nil {
			v.Check, err = seal(t.root, proof, checkAAD(r.ID))
		}
		if err != nil {
			return version{}, fmt.Errorf("mark key material: %w", err)
		}
	}
	var err error
	if v.Material, err = seal(t.root, material.Bytes(), materialAAD(r.ID, v.Number)); err != nil {
		return version{}, fmt.Errorf("seal key material: %w", err)
	}
	return v, nil
}

// checkSame refuses other material than was there before: it would open none of the
// data keys.
func (t *session) checkSame(r *record, material *secret.Buffer) error {
	proof, err := unseal(t.root, r.Versions[0].Check, checkAAD(r.ID))
	if err != nil {
		return fmt.Errorf("open mark of key material: %w", err)
	}
	if proof == nil {
		return damaged(t.path(recordFile(r.ID)), "the mark of its material does not open")
	}
	defer proof.Destroy()
	same, err := unseal(material, proof.Bytes(), checkAAD(r.ID))
	same.Destroy()
	if err != nil {
		return fmt.Errorf("compare key material: %w", err)
	}
	if same == nil {
		return &keymgr.Error{
			Code: CodeMaterial, Key: r.ID, Hint: "import the material that the key had first; for other material make another key",
			Err: fmt.Errorf("import other material than before: %w", keymgr.ErrInvalid),
		}
	}
	return nil
}

// DeleteKeyMaterial forgets imported material at once. The key waits for the same
// material to come back.
func (k *KMS) DeleteKeyMaterial(ctx context.Context, key string) error {
	return k.change(ctx, Entry{Operation: "DeleteKeyMaterial", Key: key}, opForget, func(t *session, r *record) error {
		if r.Origin != originExternal {
			return &keymgr.Error{
				Code: CodeOrigin, Key: r.ID, Hint: "to delete the key: sealblk key schedule-deletion " + r.ID,
				Err: fmt.Errorf("delete the material of a key made here: %w", keymgr.ErrInvalid),
			}
		}
		t.entry.Version = r.primary()
		r.forgetMaterial()
		return nil
	})
}
