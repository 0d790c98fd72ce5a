package inflight

import "sealblk/vhost/virtqueue"

// Version is the version of the layout.
const Version = 1

// Sizes in bytes. A queue's part is a header and an entry for each descriptor.
const (
	headerSize = 16
	entrySize  = 16
	queueAlign = 64
)

// QueueBytes is the length of one queue's part of the region.
func QueueBytes(size int) int {
	return (headerSize + entrySize*size + queueAlign - 1) &^ (queueAlign - 1)
}

// Bytes is the length of a region for a number of queues, all of one size. A region
// that Create made has memoBytes more.
func Bytes(queues, size int) int { return queues * QueueBytes(size) }

// maxQueues is what vhost-user can name.
const maxQueues = 256

func validShape(queues, size int) bool {
	return queues > 0 && queues <= maxQueues && size > 0 && size <= virtqueue.MaxSize
}

// Everything in the region lies in aligned words of 64 bits, and each is stored whole:
// what shares a word changes at once. In words, from the start of a queue's part:
const (
	featuresWord = 0 // features: none are defined
	headerWord   = 1 // see header
	firstEntry   = 2
	entryWords   = 2 // mark and link; counter
)

// entry is where the entry of a descriptor begins.
func entry(head uint16) int { return firstEntry + entryWords*int(head) }

// header is version, desc_num, last_batch_head and used_idx, 16 bits each.
type header uint64

func newHeader(size int, last, used uint16) header {
	return header(Version | uint64(uint16(size))<<16 | uint64(last)<<32 | uint64(used)<<48)
}

func (h header) version() uint16 { return uint16(h) }
func (h header) size() int       { return int(uint16(h >> 16)) }
func (h header) last() uint16    { return uint16(h >> 32) }
func (h header) used() uint16    { return uint16(h >> 48) }

// mark is the first word of an entry: inflight in the lowest byte, then 5 bytes of
// padding, then next.
type mark uint64

func newMark(inFlight bool, next uint16) mark {
	m := mark(next) << 48
	if inFlight {
		m |= 1
	}
	return m
}

func (m mark) inFlight() bool { return uint8(m) == 1 }
func (m mark) valid() bool    { return uint8(m) <= 1 }
func (m mark) next() uint16   { return uint16(m >> 48) }

// memo is a word behind the queues, which the protocol knows nothing of: what the device
// is to remember, in 16 bits, below a mark that tells that it is there.
type memo uint64

const (
	memoBytes = 8
	memoMark  = 0x73_65_61_6c_62_6b << 16
)

func newMemo(v uint16) memo  { return memoMark | memo(v) }
func (m memo) valid() bool   { return m&^0xffff == memoMark }
func (m memo) value() uint16 { return uint16(m) }
