package virtqueue

import (
	"sync/atomic"
	"unsafe"
)

// The indexes of a ring are 16 bits wide and Go has no atomics of that width. They
// are read with an atomic load of the aligned 32-bit word that they lie in: such a
// word never crosses a page, so it is mapped when the index is, also where it
// reaches outside the ring. The shift is that of a little-endian host, the only
// kind this package is built for.

// loadUint16 reads the 16-bit field at b[off], which is 2-byte aligned.
func loadUint16(b []byte, off int) uint16 {
	p := unsafe.Pointer(&b[off : off+2][0])
	low := uintptr(p) & 2
	return uint16(atomic.LoadUint32((*uint32)(unsafe.Add(p, -int(low)))) >> (8 * low))
}

// readUint16 reads such a field that an atomic load before it has ordered.
func readUint16(b []byte, off int) uint16 {
	return *(*uint16)(unsafe.Pointer(&b[off : off+2][0]))
}

// writeUint16 is a plain store: a wider one would overrun the ring.
func writeUint16(b []byte, off int, v uint16) {
	*(*uint16)(unsafe.Pointer(&b[off : off+2][0])) = v
}

// storeUint32 is an atomic store, ordered after all that precedes it and before
// the atomic loads that follow it.
func storeUint32(b []byte, off int, v uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&b[off : off+4][0])), v)
}

func aligned(b []byte, to uintptr) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))&(to-1) == 0
}
