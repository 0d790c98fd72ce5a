//go:build amd64 && !purego

package cipher

//go:generate go run -C _asm ./xts -out ../xts_amd64.s -pkg cipher

// The kernels take runs as engine.go describes them. keys is the state with the
// schedules of expandAESNI. They read each byte of src once and write each byte of
// dst once, but for the first 8 of a unit that is decrypted; they leave nothing in
// registers or on the stack. ahead, then and turn are the fields of soon.

//go:noescape
func encryptAESNI(keys, dst, src *byte, units, unitSize, lo, hi uint64, ahead, then uintptr, turn uint64)

//go:noescape
func decryptAESNI(keys, dst, src *byte, units, unitSize, lo, hi, skip uint64, ahead, then uintptr, turn uint64) (left uint64)

//go:noescape
func encryptVAES(keys, dst, src *byte, units, unitSize, lo, hi uint64, ahead, then uintptr, turn uint64)

//go:noescape
func decryptVAES(keys, dst, src *byte, units, unitSize, lo, hi, skip uint64, ahead, then uintptr, turn uint64) (left uint64)

// expandAESNI expands the 64 bytes of key to three schedules of 15 round keys in
// FIPS 197's order: at 0 for the data, at 256 for the inverse cipher of the data,
// at 512 for the tweaks.
//
//go:noescape
func expandAESNI(keys, key *byte)

// clearVectors sets X0 to X15 to zero.
func clearVectors()

// clearWide sets Y0 to Y15 to zero. It needs AVX.
func clearWide()

// clearAllVectors clears what a kernel that did not come to its end left.
func clearAllVectors() {
	clearVectors()
	if hasAESNI() { // which AVX is a part of
		clearWide()
	}
}

func expand(e engine, s *state, key *[KeySize]byte) {
	if e == engineGeneric {
		expandGeneric(s, key)
		return
	}
	expandAESNI(&s[0], &key[0])
}

func encryptUnits(e engine, s *state, dst, src *byte, units, unitSize, lo, hi uint64, soon soon) {
	switch e {
	case engineVAES:
		encryptVAES(&s[0], dst, src, units, unitSize, lo, hi, soon.ahead, soon.then, soon.turn)
	case engineAESNI:
		encryptAESNI(&s[0], dst, src, units, unitSize, lo, hi, soon.ahead, soon.then, soon.turn)
	default:
		encryptGeneric(s, dst, src, units, unitSize, lo, hi)
	}
}

func decryptUnits(e engine, s *state, dst, src *byte, units, unitSize, lo, hi, skip uint64, soon soon) (left uint64) {
	switch e {
	case engineVAES:
		return decryptVAES(&s[0], dst, src, units, unitSize, lo, hi, skip, soon.ahead, soon.then, soon.turn)
	case engineAESNI:
		return decryptAESNI(&s[0], dst, src, units, unitSize, lo, hi, skip, soon.ahead, soon.then, soon.turn)
	default:
		return decryptGeneric(s, dst, src, units, unitSize, lo, hi, skip)
	}
}
