package cipher

import (
	"encoding/binary"
	"math/bits"
)

const (
	blockSize = 16
	rounds    = 14
)

// schedule is the round keys of one AES-256 key, bitsliced, each of them in all
// four states.
type schedule [rounds + 1]lanes

// genericState is the layout of the state for the generic engine.
type genericState struct {
	data, tweak schedule
	words       [8]uint32 // scratch of the key expansion, zero afterwards
}

// expandGeneric expands both halves of the key.
func expandGeneric(s *state, key *[KeySize]byte) {
	scrubStack()
	s.generic().expand(key)
	scrubStack()
}

// expand is not inlined, so that its variables lie where the caller scrubs the
// stack.
//
//go:noinline
func (g *genericState) expand(key *[KeySize]byte) {
	g.data.expand(&g.words, (*[32]byte)(key[:32]))
	g.tweak.expand(&g.words, (*[32]byte)(key[32:]))
	clear(g.words[:])
}

// expand is the key expansion of FIPS 197, 5.2, for 8-word keys. It keeps the last
// eight words of the expanded key in w.
func (k *schedule) expand(w *[8]uint32, key *[32]byte) {
	for i := range w {
		w[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	k[0].setRoundKey(w[:4])
	k[1].setRoundKey(w[4:])
	rcon := uint32(1)
	for r := 2; r <= rounds; r += 2 {
		nextWords(w[:4], subWord(bits.RotateLeft32(w[7], -8))^rcon)
		k[r].setRoundKey(w[:4])
		rcon <<= 1
		if r == rounds {
			break
		}
		nextWords(w[4:], subWord(w[3]))
		k[r+1].setRoundKey(w[4:])
	}
}

// nextWords replaces the four words of a round key by those eight words on; t is
// the transformed word before them.
func nextWords(w []uint32, t uint32) {
	for i := range w {
		t ^= w[i]
		w[i] = t
	}
}

// setRoundKey sets q to the round key w in all four states.
func (q *lanes) setRoundKey(w []uint32) {
	lo := uint64(w[0]) | uint64(w[1])<<32
	hi := uint64(w[2]) | uint64(w[3])<<32
	b := blocks{lo, hi, lo, hi, lo, hi, lo, hi}
	q.load(&b)
}

// subWord applies the S-box to four bytes.
func subWord(w uint32) uint32 {
	b := blocks{uint64(w)}
	var q lanes
	q.load(&b)
	q.subBytes()
	q.store(&b)
	return uint32(b[0])
}

func (k *schedule) crypt(b *blocks, decrypt bool) {
	if decrypt {
		k.decrypt(b)
	} else {
		k.encrypt(b)
	}
}

func (k *schedule) encrypt(b *blocks) {
	var q lanes
	q.load(b)
	q.xor(&k[0])
	for r := 1; r < rounds; r++ {
		q.subBytes()
		q.shiftRows()
		q.mixColumns()
		q.xor(&k[r])
	}
	q.subBytes()
	q.shiftRows()
	q.xor(&k[rounds])
	q.store(b)
}

func (k *schedule) decrypt(b *blocks) {
	var q lanes
	q.load(b)
	q.xor(&k[rounds])
	for r := rounds - 1; r > 0; r-- {
		q.invShiftRows()
		q.invSubBytes()
		q.xor(&k[r])
		q.invMixColumns()
	}
	q.invShiftRows()
	q.invSubBytes()
	q.xor(&k[0])
	q.store(b)
}

func encryptGeneric(s *state, dst, src *byte, units, unitSize, lo, hi uint64) {
	scrubStack()
	cryptGeneric(s.generic(), false, dst, src, units, unitSize, lo, hi)
	scrubStack()
}

func decryptGeneric(s *state, dst, src *byte, units, unitSize, lo, hi, skip uint64) (left uint64) {
	n := units
	if skip == 0 {
		n = untilZero(src, units, unitSize)
	}
	if n > 0 {
		scrubStack()
		cryptGeneric(s.generic(), true, dst, src, n, unitSize, lo, hi)
		scrubStack()
	}
	return units - n
}

// untilZero counts the units before the first one whose first 8 bytes are zero.
func untilZero(src *byte, units, unitSize uint64) (n uint64) {
	for n < units && binary.LittleEndian.Uint64(quadAt(src, n*unitSize)[:8]) != 0 {
		n++
	}
	return n
}

// cryptGeneric goes over a run of data units. It is not inlined, so that its
// variables lie where the caller scrubs the stack.
//
//go:noinline
func cryptGeneric(g *genericState, decrypt bool, dst, src *byte, units, unitSize, lo, hi uint64) {
	var tweaks blocks
	step := unitSize / SectorSize
	for u := range units {
		if u%4 == 0 {
			g.tweak.unitTweaks(&tweaks, lo+u*step, hi, step)
		}
		t := tweak{tweaks[u%4*2], tweaks[u%4*2+1]}
		for at := u * unitSize; at < (u+1)*unitSize; at += 4 * blockSize {
			var w, b blocks
			t.fill(&w)
			b.read(quadAt(src, at), &w)
			g.data.crypt(&b, decrypt)
			b.write(quadAt(dst, at), &w)
		}
	}
}

// unitTweaks encrypts the tweaks of four consecutive data units together.
func (k *schedule) unitTweaks(b *blocks, lo, hi, step uint64) {
	for i := range uint64(4) {
		b[2*i], b[2*i+1] = lo+i*step, hi
	}
	k.encrypt(b)
}

// tweak is an encrypted tweak as an element of GF(2^128): lo holds the
// coefficients of x^0 to x^63.
type tweak struct{ lo, hi uint64 }

// fill sets w to the tweaks of the next four blocks and steps t past them.
func (t *tweak) fill(w *blocks) {
	for i := 0; i < len(w); i += 2 {
		w[i], w[i+1] = t.lo, t.hi
		t.double()
	}
}

// double multiplies t by x modulo x^128 + x^7 + x^2 + x + 1.
func (t *tweak) double() {
	carry := -(t.hi >> 63)
	t.hi = t.hi<<1 | t.lo>>63
	t.lo = t.lo<<1 ^ 0x87&carry
}

// read sets b to the sum of the blocks at p, read once, and of w.
func (b *blocks) read(p *quad, w *blocks) {
	for i := range b {
		b[i] = binary.LittleEndian.Uint64(p[8*i:]) ^ w[i]
	}
}

// write puts the sum of b and w to p.
func (b *blocks) write(p *quad, w *blocks) {
	for i := range b {
		binary.LittleEndian.PutUint64(p[8*i:], b[i]^w[i])
	}
}
