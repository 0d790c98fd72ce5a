package luks

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"hash"
)

// newDigest makes the digest of a key under a fresh salt.
func newDigest(dk []byte, iterations int) (digest, error) {
	d := digest{salt: make([]byte, 32), iterations: iterations}
	rand.Read(d.salt)
	var err error
	d.sum, err = pbkdf2(dk, d.salt, iterations)
	return d, err
}

// pendingDigest is one that no key matches: its sum is zeros.
func pendingDigest(iterations int) digest {
	d := digest{salt: make([]byte, 32), iterations: iterations}
	rand.Read(d.salt)
	return d
}

func (d *digest) pending() bool { return d.sum == [sha256.Size]byte{} }

// verify is the proof that dk is the volume key.
func (d *digest) verify(dk []byte) error {
	sum, err := pbkdf2(dk, d.salt, d.iterations)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(sum[:], d.sum[:]) != 1 {
		return ErrWrongKey
	}
	return nil
}

// prf is HMAC-SHA256 under a key of exactly one block, reduced to the two chaining
// values behind the key blocks: they are enough to go on from and do not lead back
// to the key.
type prf struct {
	hash         hash.Hash
	inner, outer []byte
	sum          [sha256.Size]byte
}

// newPRF reads the key where it lies. pad is a block of locked memory, which holds
// the key XORed with a constant while it is hashed, and zeros afterwards.
func newPRF(key, pad []byte) (*prf, error) {
	p := &prf{hash: sha256.New()}
	// The first block makes the stack as deep as it will be, so that none of the
	// frames below is moved, and left behind, after it has seen the key.
	clear(pad)
	p.hash.Write(pad)
	defer clear(pad)
	var err error
	if p.inner, err = p.keyBlock(key, pad, 0x36); err != nil {
		return nil, err
	}
	p.outer, err = p.keyBlock(key, pad, 0x5c)
	return p, err
}

// keyBlock is the state of the hash after key XOR mask. Write hands a whole block to
// the block function in place and buffers nothing.
func (p *prf) keyBlock(key, pad []byte, mask byte) ([]byte, error) {
	for i := range pad {
		pad[i] = key[i] ^ mask
	}
	p.hash.Reset()
	p.hash.Write(pad)
	return p.hash.(encoding.BinaryAppender).AppendBinary(nil)
}

// mac is the HMAC of the message, valid until the next call.
func (p *prf) mac(msg ...[]byte) ([]byte, error) {
	resume := p.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary
	if err := resume(p.inner); err != nil {
		return nil, err
	}
	for _, m := range msg {
		p.hash.Write(m)
	}
	sum := p.hash.Sum(p.sum[:0])
	if err := resume(p.outer); err != nil {
		return nil, err
	}
	p.hash.Write(sum)
	return p.hash.Sum(p.sum[:0]), nil
}

func (p *prf) wipe() {
	clear(p.inner)
	clear(p.outer)
	p.hash.Reset()
}

// pbkdf2 is the first block of PBKDF2-HMAC-SHA256, which is all that a digest of 32
// bytes needs. The key has exactly keySize bytes, the block size of the hash.
func pbkdf2(key, salt []byte, iterations int) (out [sha256.Size]byte, err error) {
	if len(key) != keySize {
		return out, ErrKey
	}
	page, err := newScratch()
	if err != nil {
		return out, err
	}
	defer page.free()
	p, err := newPRF(key, page[:keySize])
	if err != nil {
		return out, err
	}
	defer p.wipe()
	block := binary.BigEndian.AppendUint32(nil, 1)
	u, err := p.mac(salt, block)
	if err != nil {
		return out, err
	}
	copy(out[:], u)
	for range iterations - 1 {
		if u, err = p.mac(u); err != nil {
			return out, err
		}
		subtle.XORBytes(out[:], out[:], u)
	}
	return out, nil
}
