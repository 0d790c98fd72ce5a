package cipher

import "unsafe"

// state is the memory of the round keys. Each engine has its own layout for it.
type state [StateSize]byte

// stateIn returns the state at the start of mem, nil if mem will not do.
func stateIn(mem []byte) *state {
	if len(mem) < StateSize || uintptr(unsafe.Pointer(unsafe.SliceData(mem)))%StateAlign != 0 {
		return nil
	}
	return (*state)(mem)
}

// alignedState returns StateSize bytes of Go memory, aligned to StateAlign.
func alignedState() []byte {
	mem := make([]byte, StateSize+StateAlign-1)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(mem))) % StateAlign
	return mem[skip:][:StateSize]
}

// generic gives the state the layout of the generic engine.
func (s *state) generic() *genericState { return (*genericState)(unsafe.Pointer(s)) }

// A negative length here means that the layout does not fit: it does not compile.
var _ [StateSize - unsafe.Sizeof(genericState{})]byte

// inexactOverlap reports whether a and b, of the same length, share memory without
// being the same.
func inexactOverlap(a, b []byte) bool {
	if len(a) == 0 || &a[0] == &b[0] {
		return false
	}
	pa, pb := uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&b[0]))
	return pa < pb+uintptr(len(b)) && pb < pa+uintptr(len(a))
}

// quad is the memory of four consecutive blocks.
type quad [4 * blockSize]byte

// quadAt returns the four blocks at p + offset. The caller knows that they exist.
func quadAt(p *byte, offset uint64) *quad {
	return (*quad)(unsafe.Add(unsafe.Pointer(p), offset))
}

// address is where b begins.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
