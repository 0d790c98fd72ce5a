package kmip

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"

	"sealblk/internal/sigmask"
	"sealblk/keymgr"
	"sealblk/keymgr/secret"
)

func newNonce() []byte {
	nonce := make([]byte, nonceSize)
	rand.Read(nonce) // never fails
	return nonce
}

// newGCM expands a key. Its round keys lie on the Go heap: use it once and let it go.
func newGCM(kek *secret.Buffer) (cipher.AEAD, error) {
	block, err := aes.NewCipher(kek.Bytes())
	if err != nil {
		return nil, fmt.Errorf("expand key: %w", err)
	}
	return cipher.NewGCM(block)
}

// seal wraps a data key here, under a key that the server handed out.
func seal(kek, dk *secret.Buffer, aad []byte) (s sealed, err error) {
	err = sigmask.Do(func() error {
		g, err := newGCM(kek)
		if err != nil {
			return err
		}
		s.nonce = newNonce()
		out := g.Seal(nil, s.nonce, dk.Bytes(), aad)
		s.text, s.tag = out[:keymgr.DataKeySize], out[keymgr.DataKeySize:]
		return nil
	})
	return s, err
}

// unseal unwraps a data key here. It returns nil without an error when the
// authentication fails.
func unseal(kek *secret.Buffer, s sealed, aad []byte) (*secret.Buffer, error) {
	dk, err := secret.New(keymgr.DataKeySize)
	if err != nil {
		return nil, err
	}
	authentic := false
	err = sigmask.Do(func() error {
		g, err := newGCM(kek)
		if err != nil {
			return err
		}
		_, failed := g.Open(dk.Bytes()[:0], s.nonce, append(append([]byte(nil), s.text...), s.tag...), aad)
		authentic = failed == nil
		return nil
	})
	if err != nil || !authentic {
		dk.Destroy()
		return nil, err
	}
	return dk, nil
}
