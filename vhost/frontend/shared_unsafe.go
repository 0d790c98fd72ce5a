package frontend

import (
	"sync/atomic"
	"unsafe"
)

// A ring's fields are 16 bits wide, and Go has no atomics of that width. Where two
// of them share an aligned 32-bit word that one side alone writes (flags and idx),
// the word is stored and loaded whole. The hosts that this is built for are
// little-endian: flags are the low half.

func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func word(b []byte, off int) *uint32 {
	return (*uint32)(unsafe.Pointer(&b[off : off+4][0]))
}

// loadWord is ordered before all that follows it.
func loadWord(b []byte, off int) uint32 { return atomic.LoadUint32(word(b, off)) }

// storeWord is ordered after all that precedes it and before the loads that follow.
func storeWord(b []byte, off int, v uint32) { atomic.StoreUint32(word(b, off), v) }

// putUint16 is one plain aligned store.
func putUint16(b []byte, off int, v uint16) {
	*(*uint16)(unsafe.Pointer(&b[off : off+2][0])) = v
}

func getUint16(b []byte, off int) uint16 {
	return *(*uint16)(unsafe.Pointer(&b[off : off+2][0]))
}

// swapWord puts 0 in the place of a word and returns it.
func swapWord(b []byte, off int) uint32 { return atomic.SwapUint32(word(b, off), 0) }
