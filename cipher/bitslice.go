package cipher

import "math/bits"

// lanes holds four AES states, bitsliced: word k is bit k of all 64 bytes. The
// byte at row r and column c of state b is at bit position 16r + 4c + b, so that
// ShiftRows rotates 16-bit groups and a step between rows is a rotation of the
// whole word by 16. Nothing here branches on the data or uses it as an index.
type lanes [8]uint64

// blocks are the same four AES states as bytes: two little-endian words a block.
type blocks [8]uint64

// load sets q to the bitsliced form of b.
func (q *lanes) load(b *blocks) {
	for i := range 4 {
		lo, hi := b[2*i], b[2*i+1]
		q[i] = interleave(uint32(lo), uint32(hi))
		q[i+4] = interleave(uint32(lo>>32), uint32(hi>>32))
	}
	q.transpose()
}

// store is the inverse of load. It destroys q.
func (q *lanes) store(b *blocks) {
	q.transpose()
	for i := range 4 {
		c0, c2 := separate(q[i])
		c1, c3 := separate(q[i+4])
		b[2*i] = uint64(c0) | uint64(c1)<<32
		b[2*i+1] = uint64(c2) | uint64(c3)<<32
	}
}

// interleave puts the bytes of a at the even and those of b at the odd places.
func interleave(a, b uint32) uint64 { return spread(a) | spread(b)<<8 }

func separate(x uint64) (a, b uint32) { return gather(x), gather(x >> 8) }

func spread(a uint32) uint64 {
	x := uint64(a)
	x = (x | x<<16) & 0x0000ffff0000ffff
	return (x | x<<8) & 0x00ff00ff00ff00ff
}

func gather(x uint64) uint32 {
	x &= 0x00ff00ff00ff00ff
	x = (x | x>>8) & 0x0000ffff0000ffff
	return uint32(x | x>>16)
}

// transpose exchanges the number of a word with the place of a bit in its byte:
// eight words by eight bits, for each of the eight bytes. It is its own inverse.
func (q *lanes) transpose() {
	for i := 0; i < 8; i += 2 {
		swapBits(&q[i], &q[i+1], 0x5555555555555555, 1)
	}
	for _, i := range [...]int{0, 1, 4, 5} {
		swapBits(&q[i], &q[i+2], 0x3333333333333333, 2)
	}
	for i := range 4 {
		swapBits(&q[i], &q[i+4], 0x0f0f0f0f0f0f0f0f, 4)
	}
}

// swapBits exchanges the bits of b under mask with those of a that stand n higher.
func swapBits(a, b *uint64, mask uint64, n uint) {
	t := (*a>>n ^ *b) & mask
	*b ^= t
	*a ^= t << n
}

// xor adds a round key (AddRoundKey).
func (q *lanes) xor(k *lanes) {
	for i := range q {
		q[i] ^= k[i]
	}
}

// shiftRows rotates row r by r columns: two for the lower half of the rows, then
// one for the odd rows.
func (q *lanes) shiftRows() {
	for i, x := range q {
		x = x&0x00000000ffffffff | x>>8&0x00ff00ff00000000 | x<<8&0xff00ff0000000000
		q[i] = x&0x0000ffff0000ffff | x>>4&0x0fff00000fff0000 | x<<12&0xf0000000f0000000
	}
}

// invShiftRows is the inverse of shiftRows.
func (q *lanes) invShiftRows() {
	for i, x := range q {
		x = x&0x00000000ffffffff | x>>8&0x00ff00ff00000000 | x<<8&0xff00ff0000000000
		q[i] = x&0x0000ffff0000ffff | x<<4&0xfff00000fff00000 | x>>12&0x000f0000000f0000
	}
}

// down1 and down2 move each byte's lower neighbour by one or two rows into its place.
func down1(x uint64) uint64 { return bits.RotateLeft64(x, -16) }
func down2(x uint64) uint64 { return bits.RotateLeft64(x, -32) }

// mixColumns is 2a + 3b + c + d for a byte a and the three below it in its column,
// computed as 2(a+b) + b + (c+d). Doubling moves bits one word up; bit 7 comes back
// as x^4 + x^3 + x + 1.
func (q *lanes) mixColumns() {
	b0, b1, b2, b3 := down1(q[0]), down1(q[1]), down1(q[2]), down1(q[3])
	b4, b5, b6, b7 := down1(q[4]), down1(q[5]), down1(q[6]), down1(q[7])
	t0, t1, t2, t3 := q[0]^b0, q[1]^b1, q[2]^b2, q[3]^b3
	t4, t5, t6, t7 := q[4]^b4, q[5]^b5, q[6]^b6, q[7]^b7
	q[0] = t7 ^ b0 ^ down2(t0)
	q[1] = t0 ^ t7 ^ b1 ^ down2(t1)
	q[2] = t1 ^ b2 ^ down2(t2)
	q[3] = t2 ^ t7 ^ b3 ^ down2(t3)
	q[4] = t3 ^ t7 ^ b4 ^ down2(t4)
	q[5] = t4 ^ b5 ^ down2(t5)
	q[6] = t5 ^ b6 ^ down2(t6)
	q[7] = t6 ^ b7 ^ down2(t7)
}

// invMixColumns uses that its matrix is the one of mixColumns times 5 + 4x^2: it
// adds 4(a+c) to each byte a and then mixes.
func (q *lanes) invMixColumns() {
	t0, t1, t2, t3 := q[0]^down2(q[0]), q[1]^down2(q[1]), q[2]^down2(q[2]), q[3]^down2(q[3])
	t4, t5, t6, t7 := q[4]^down2(q[4]), q[5]^down2(q[5]), q[6]^down2(q[6]), q[7]^down2(q[7])
	q[0] ^= t6
	q[1] ^= t6 ^ t7
	q[2] ^= t7 ^ t0
	q[3] ^= t6 ^ t1
	q[4] ^= t6 ^ t7 ^ t2
	q[5] ^= t7 ^ t3
	q[6] ^= t4
	q[7] ^= t5
	q.mixColumns()
}

// invSubBytes is the inverse of subBytes. With S = A∘I, where I inverts in the
// field and A is affine, S⁻¹ = A⁻¹∘S∘A⁻¹, because I is its own inverse.
func (q *lanes) invSubBytes() {
	q.invAffine()
	q.subBytes()
	q.invAffine()
}

// invAffine inverts the affine map of FIPS 197, 5.1.1: bit i becomes the sum of
// the bits i+2, i+5 and i+7 (modulo 8) of the byte and of 0x05.
func (q *lanes) invAffine() {
	a0, a1, a2, a3, a4, a5, a6, a7 := q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7]
	q[0] = ^(a2 ^ a5 ^ a7)
	q[1] = a3 ^ a6 ^ a0
	q[2] = ^(a4 ^ a7 ^ a1)
	q[3] = a5 ^ a0 ^ a2
	q[4] = a6 ^ a1 ^ a3
	q[5] = a7 ^ a2 ^ a4
	q[6] = a0 ^ a3 ^ a5
	q[7] = a1 ^ a4 ^ a6
}
