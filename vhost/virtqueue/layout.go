package virtqueue

import "encoding/binary"

// Ring features (virtio 1.3, clause 6), as bit numbers.
const (
	FeatureIndirectDesc = 28
	FeatureEventIdx     = 29
	FeatureVersion1     = 32
)

// Flags of a descriptor (clause 2.7.5).
const (
	DescNext     = 1
	DescWrite    = 2
	DescIndirect = 4
)

const (
	// AvailNoInterrupt: the driver does not want to be notified (clause 2.7.6).
	AvailNoInterrupt = 1
	// UsedNoNotify: the device does not want to be notified (clause 2.7.8).
	UsedNoNotify = 1
)

// Sizes, alignments and offsets of a split virtqueue, in bytes (clauses 2.7,
// 2.7.6 and 2.7.8). All fields are little-endian.
const (
	// MaxSize is the largest queue size, in descriptors.
	MaxSize = 32768

	DescSize     = 16
	UsedElemSize = 8

	DescAlign  = 16
	AvailAlign = 2
	UsedAlign  = 4

	AvailFlagsOffset = 0
	AvailIdxOffset   = 2
	AvailRingOffset  = 4
	UsedFlagsOffset  = 0
	UsedIdxOffset    = 2
	UsedRingOffset   = 4
)

// DescTableSize is the length in bytes of the descriptor table of a queue.
func DescTableSize(size int) int { return DescSize * size }

// AvailSize is the length in bytes of the avail ring, used_event included.
func AvailSize(size int) int { return UsedEventOffset(size) + 2 }

// UsedSize is the length in bytes of the used ring, avail_event included.
func UsedSize(size int) int { return AvailEventOffset(size) + 2 }

// UsedEventOffset is where used_event stands in the avail ring.
func UsedEventOffset(size int) int { return AvailRingOffset + 2*size }

// AvailEventOffset is where avail_event stands in the used ring.
func AvailEventOffset(size int) int { return UsedRingOffset + UsedElemSize*size }

// ValidSize tells whether size may be the size of a split virtqueue.
func ValidSize(size int) bool {
	return size > 0 && size <= MaxSize && size&(size-1) == 0
}

// NeedEvent tells whether an index that moved from before to now has passed
// event, and so whether the other side asked for a notification (clause
// 2.7.7.2 and 2.7.10). The indexes are free running and wrap at 65536.
func NeedEvent(event, now, before uint16) bool {
	return now-event-1 < now-before
}

// Desc is a descriptor.
type Desc struct {
	Addr  uint64
	Len   uint32
	Flags uint16
	Next  uint16
}

// Put stores the descriptor in the first DescSize bytes of b.
func (d Desc) Put(b []byte) {
	binary.LittleEndian.PutUint64(b[0:8], d.Addr)
	binary.LittleEndian.PutUint32(b[8:12], d.Len)
	binary.LittleEndian.PutUint16(b[12:14], d.Flags)
	binary.LittleEndian.PutUint16(b[14:16], d.Next)
}

// DecodeDesc reads the descriptor in b. To read guest memory once, copy it first.
func DecodeDesc(b *[DescSize]byte) Desc {
	return Desc{
		Addr:  binary.LittleEndian.Uint64(b[0:8]),
		Len:   binary.LittleEndian.Uint32(b[8:12]),
		Flags: binary.LittleEndian.Uint16(b[12:14]),
		Next:  binary.LittleEndian.Uint16(b[14:16]),
	}
}
