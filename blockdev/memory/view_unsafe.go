package memory

import (
	"unsafe"

	"sealblk/blockdev"
)

// View implements blockdev.Viewer: every byte can be reached, for every operation.
func (q *queue) View(_ blockdev.Op, offset, length int64) []byte {
	return q.dev.mem[offset : offset+length : offset+length]
}

// Viewed implements blockdev.Viewer.
func (q *queue) Viewed(addr uintptr) bool {
	return addr-uintptr(unsafe.Pointer(unsafe.SliceData(q.dev.mem))) < uintptr(len(q.dev.mem))
}
