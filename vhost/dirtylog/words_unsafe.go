package dirtylog

import (
	"sync/atomic"
	"unsafe"
)

// words are the log as 32-bit words. A log may begin at any byte of its file and end
// at any; atomic operations want aligned words. So the bits of an unaligned log are
// shifted, and the first and the last word may reach outside of it: not out of its
// page, and all that happens to what is there is that no bit is set. The byte order
// is that of a little-endian host, the only kind this package is built for.
type words struct {
	base  unsafe.Pointer // aligned
	shift uint64         // of bit 0, in bits: 0, 8, 16 or 24
}

func newWords(b []byte) words {
	p := unsafe.Pointer(unsafe.SliceData(b))
	lead := uintptr(p) & 3
	return words{unsafe.Add(p, -int(lead)), 8 * uint64(lead)}
}

// set sets the bits of mask in the 32 bits from 32*i on. Bits that are clear touch
// nothing.
func (w words) set(i uint64, mask uint32) {
	m := uint64(mask) << w.shift
	if low := uint32(m); low != 0 {
		atomic.OrUint32(w.at(i), low)
	}
	if high := uint32(m >> 32); high != 0 {
		atomic.OrUint32(w.at(i+1), high)
	}
}

func (w words) at(i uint64) *uint32 { return (*uint32)(unsafe.Add(w.base, 4*i)) }
