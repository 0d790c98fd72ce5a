//go:build pkcs11

package pkcs11

import (
	"errors"
	"slices"

	"github.com/miekg/pkcs11"

	"sealblk/keymgr/secret"
)

// gcm is the mechanism AES-GCM with its parameters, which the caller frees.
func gcm(nonce, aad []byte) (*pkcs11.GCMParams, []*pkcs11.Mechanism) {
	p := pkcs11.NewGCMParams(nonce, aad, tagSize*8)
	return p, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, p)}
}

// seal encrypts in the token. The token may choose another nonce.
func (s session) seal(key pkcs11.ObjectHandle, plain *secret.Buffer, aad []byte) (nonce, sealed []byte, err error) {
	random, err := secret.Random(nonceSize) // no secret, but at hand
	if err != nil {
		return nil, nil, err
	}
	defer random.Destroy()
	p, mechanism := gcm(slices.Clone(random.Bytes()), aad)
	defer p.Free()
	if err := s.ctx.EncryptInit(s.handle, mechanism, key); err != nil {
		return nil, nil, err
	}
	if sealed, err = s.ctx.Encrypt(s.handle, plain.Bytes()); err != nil {
		return nil, nil, err
	}
	return p.IV(), sealed, nil
}

// open decrypts under a version, which is one of all, in the token, into locked memory. It
// returns nil without an error when the authentication fails.
func (s session) open(v version, all []version, nonce, sealed, aad []byte) (*secret.Buffer, error) {
	out, err := s.decrypt(v.object, nonce, sealed, aad)
	if err == nil || !maybeForged(err) {
		return out, err
	}
	return nil, s.trouble(v, all)
}

// trouble is what a token has of its own. Tokens differ in what they answer to a bad tag,
// and some answer that to trouble: see whether the key works. A version that wraps no more
// cannot show it, so another one of its token does; where there is none, the answer is
// taken to be about the tag.
func (s session) trouble(v version, all []version) error {
	for _, v := range append([]version{v}, all...) {
		if v.encrypt && v.decrypt && v.unfit == nil {
			return s.probe(v.object)
		}
	}
	return nil
}

// maybeForged: codes that tokens give for a bad tag.
func maybeForged(err error) bool {
	var code pkcs11.Error
	return errors.As(err, &code) && slices.Contains([]pkcs11.Error{
		pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_GENERAL_ERROR,
		pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_ARGUMENTS_BAD, pkcs11.CKR_SIGNATURE_INVALID,
	}, code)
}

func (s session) decrypt(key pkcs11.ObjectHandle, nonce, sealed, aad []byte) (*secret.Buffer, error) {
	p, mechanism := gcm(nonce, aad)
	defer p.Free()
	if err := s.ctx.DecryptInit(s.handle, mechanism, key); err != nil {
		return nil, err
	}
	room, err := secret.New(len(sealed)) // some tokens want room for the tag, too
	if err != nil {
		return nil, err
	}
	defer room.Destroy()
	n, err := s.raw.decrypt(s.handle, sealed, room)
	if err != nil {
		return nil, err
	}
	return room.First(n)
}

// probe seals and opens something with a key.
func (s session) probe(key pkcs11.ObjectHandle) error {
	b, err := secret.New(16)
	if err != nil {
		return err
	}
	defer b.Destroy()
	nonce, sealed, err := s.seal(key, b, nil)
	if err != nil {
		return err
	}
	again, err := s.decrypt(key, nonce, sealed, nil)
	again.Destroy()
	return err
}
