//go:build !amd64 || purego

package cipher

func engines() []engine { return []engine{engineGeneric} }

func expand(_ engine, s *state, key *[KeySize]byte) { expandGeneric(s, key) }

func encryptUnits(_ engine, s *state, dst, src *byte, units, unitSize, lo, hi uint64, _ soon) {
	encryptGeneric(s, dst, src, units, unitSize, lo, hi)
}

func decryptUnits(_ engine, s *state, dst, src *byte, units, unitSize, lo, hi, skip uint64, _ soon) (left uint64) {
	return decryptGeneric(s, dst, src, units, unitSize, lo, hi, skip)
}

// clearVectors can do nothing without assembly.
func clearVectors() {}

func clearAllVectors() {}
