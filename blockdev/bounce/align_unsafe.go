package bounce

import "unsafe"

// aligned reports whether each buffer starts at and has a multiple of unit bytes,
// a power of two.
func aligned(buffers [][]byte, unit int) bool {
	var bits uintptr
	for _, b := range buffers {
		bits |= uintptr(unsafe.Pointer(unsafe.SliceData(b))) | uintptr(len(b))
	}
	return bits&uintptr(unit-1) == 0
}

// toAligned is the index of the first byte of b whose address is a multiple of unit, a
// power of two.
func toAligned(b []byte, unit int) int {
	return int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & uintptr(unit-1))
}
