package cipher

import (
	"bytes"
	"testing"
)

// TestDecryptUntilZero puts a unit that begins with zeros at every place of a run: what
// is before it is decrypted, and nothing else is touched.
func TestDecryptUntilZero(t *testing.T) {
	forEachEngine(t, func(t *testing.T, e engine) {
		r := newRand(11)
		for _, unitSize := range unitSizes {
			x := mustXTS(t, e, randomBytes(r, KeySize), unitSize)
			for _, units := range []int{1, 2, 3, 15, 16, 17, 33} {
				plain, src := randomBytes(r, units*unitSize), make([]byte, units*unitSize)
				x.Encrypt(src, plain, 77)
				for at := range units + 1 {
					for _, zeros := range []int{ZeroPrefix - 1, ZeroPrefix, 16, unitSize} {
						stored := bytes.Clone(src)
						stop := len(stored)
						if at < units {
							clear(stored[at*unitSize:][:zeros])
							stored[at*unitSize+ZeroPrefix-1] |= byte(ZeroPrefix - min(zeros, ZeroPrefix)) // 7 zeros end with a 1
						}
						if at < units && zeros >= ZeroPrefix {
							stop = at * unitSize
						}
						untouched := randomBytes(r, len(src))
						got := bytes.Clone(untouched)
						if n := x.DecryptUntilZero(got, stored, 77, nil); n != stop {
							t.Fatalf("unit %d, %d units, %d zeros in unit %d: %d bytes, want %d", unitSize, units, zeros, at, n, stop)
						}
						before := min(stop, at*unitSize)
						if !bytes.Equal(got[:before], plain[:before]) || !bytes.Equal(got[stop:], untouched[stop:]) {
							t.Fatalf("unit %d, %d units, %d zeros in unit %d: other bytes than those before it, decrypted", unitSize, units, zeros, at)
						}
					}
				}
			}
		}
	})
}

// TestDecryptDoesNotStop: zeros are ciphertext like any other to Decrypt.
func TestDecryptDoesNotStop(t *testing.T) {
	forEachEngine(t, func(t *testing.T, e engine) {
		x := mustXTS(t, e, testKey(), 512)
		plain, back := make([]byte, 40*512), make([]byte, 40*512)
		x.Decrypt(plain, make([]byte, 40*512), 5)
		x.Encrypt(back, plain, 5)
		if !bytes.Equal(back, make([]byte, 40*512)) {
			t.Error("zeros do not come back from the decryption of zeros")
		}
	})
}
