package inflight

import "unsafe"

// words views mapped memory, which begins at a page, as words.
func words(b []byte) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}
