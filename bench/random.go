package bench

import "math/bits"

// random is xorshift64*: cheap, and good enough to choose blocks with.
type random struct{ state uint64 }

// newRandom makes generators of different streams differ also for like seeds.
func newRandom(seed, stream uint64) random {
	x := mix(seed + mix(stream+1))
	if x == 0 {
		x = 1 // the one state that xorshift does not leave
	}
	return random{x}
}

func (r *random) next() uint64 {
	r.state ^= r.state >> 12
	r.state ^= r.state << 25
	r.state ^= r.state >> 27
	return r.state * 0x2545f4914f6cdd1d
}

// below is a number from 0 to n-1. Its bias is below n/2^64.
func (r *random) below(n uint64) uint64 {
	hi, _ := bits.Mul64(r.next(), n)
	return hi
}

// fill makes p incompressible, and not zero.
func (r *random) fill(p []byte) {
	for i := range p {
		p[i] = byte(r.next() >> 56)
	}
	if len(p) > 0 {
		p[0] |= 1
	}
}

// mix is the finisher of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
