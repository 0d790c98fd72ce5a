package frontend

import (
	"fmt"

	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

// Segment is a piece of guest-physical memory, as a descriptor names it.
type Segment struct {
	Addr uint64
	Len  uint32
}

// RingConfig is the shape of a ring.
type RingConfig struct {
	// Size in descriptors, a power of two up to virtqueue.MaxSize.
	Size int
	// EventIdx: VIRTIO_F_EVENT_IDX was negotiated.
	EventIdx bool
	// Indirect is the largest number of segments in an indirect table. Each chain
	// with more than one segment uses one if it fits. 0: no indirect tables.
	Indirect int
}

// Used is a used element: the head of a chain that the device returned, and how
// many bytes it says it wrote.
type Used struct {
	Head uint16
	Len  uint32
}

// Ring is the driver side of a split virtqueue. The order of use is Add (or
// AddHead), Publish, NeedKick; then Poll.
type Ring struct {
	// Desc, Avail and Used are the three areas in guest memory. A test may write
	// whatever it likes there.
	Desc, Avail, Used Block

	config   RingConfig
	mask     uint16
	indirect Block

	next     []uint16 // of a free descriptor: the next free one; of a used one: the next in its chain
	length   []uint16 // of a chain's head: how many descriptors it takes; 0: no chain begins here
	freeHead uint16
	freeLen  int

	flags    uint16 // of the avail ring
	avail    uint16 // the next index to fill
	shown    uint16 // the index that the device was shown
	notified uint16 // the index at the last NeedKick
	used     uint16 // the next index to poll
}

// NewRing allocates a ring in guest memory.
func NewRing(m *Memory, c RingConfig) (*Ring, error) {
	if !virtqueue.ValidSize(c.Size) || c.Indirect < 0 || c.Indirect > virtqueue.MaxSize {
		return nil, fmt.Errorf("ring of %d descriptors, %d indirect: %w", c.Size, c.Indirect, ErrConfig)
	}
	r := &Ring{config: c, mask: uint16(c.Size - 1), next: make([]uint16, c.Size), length: make([]uint16, c.Size)}
	for _, a := range []struct {
		block *Block
		size  int
		align uint64
	}{
		{&r.Desc, virtqueue.DescTableSize(c.Size), virtqueue.DescAlign},
		// 4 suffices to read flags and idx as one word; 4 bytes more, to read
		// avail_event as a word that does not leave the block.
		{&r.Avail, virtqueue.AvailSize(c.Size), 4},
		{&r.Used, virtqueue.UsedSize(c.Size) + 4, virtqueue.UsedAlign},
		{&r.indirect, c.Size * c.Indirect * virtqueue.DescSize, virtqueue.DescAlign},
	} {
		b, err := m.Alloc(uint64(a.size), a.align)
		if err != nil {
			return nil, fmt.Errorf("allocate ring: %w", err)
		}
		*a.block = b
	}
	r.Reset(0)
	return r, nil
}

// Size is the number of descriptors.
func (r *Ring) Size() int { return r.config.Size }

// Free is the number of descriptors that no chain takes.
func (r *Ring) Free() int { return r.freeLen }

// AvailIndex is the index that the next Publish shows.
func (r *Ring) AvailIndex() uint16 { return r.avail }

// UsedIndex is how far Poll has come.
func (r *Ring) UsedIndex() uint16 { return r.used }

// Addr is the payload of SET_VRING_ADDR for this ring.
func (r *Ring) Addr(index uint32) *protocol.VringAddr {
	return &protocol.VringAddr{Index: index, Descriptor: r.Desc.UserAddr, Used: r.Used.UserAddr, Available: r.Avail.UserAddr}
}

// Reset empties the ring and lets it begin at an index other than 0. The device
// must have stopped.
func (r *Ring) Reset(index uint16) {
	clear(r.Desc.Bytes)
	clear(r.Avail.Bytes)
	clear(r.Used.Bytes)
	clear(r.length)
	for i := range r.next {
		r.next[i] = uint16(i + 1)
	}
	r.freeHead, r.freeLen = 0, r.config.Size
	r.flags, r.avail, r.shown, r.notified, r.used = 0, index, index, index, index
	storeWord(r.Used.Bytes, virtqueue.UsedFlagsOffset, uint32(index)<<16)
	r.Publish()
}

// Add puts a chain into the avail ring. Its first readable segments are for the
// device to read, the others for it to write. The device sees it after Publish.
func (r *Ring) Add(segments []Segment, readable int) (head uint16, err error) {
	if len(segments) > 1 && len(segments) <= r.config.Indirect {
		return r.addIndirect(segments, readable)
	}
	if len(segments) == 0 || len(segments) > r.freeLen {
		return 0, ErrRingFull
	}
	head = r.freeHead
	at := head
	for i, s := range segments {
		d := descriptor(s, i >= readable)
		if i < len(segments)-1 {
			d.Flags |= virtqueue.DescNext
			d.Next = r.next[at]
		}
		r.PutDesc(at, d)
		at = r.next[at]
	}
	r.take(head, at, len(segments))
	return head, nil
}

// addIndirect writes the chain into the table that belongs to its one descriptor.
func (r *Ring) addIndirect(segments []Segment, readable int) (head uint16, err error) {
	if r.freeLen == 0 {
		return 0, ErrRingFull
	}
	head = r.freeHead
	size := uint64(r.config.Indirect * virtqueue.DescSize)
	table := r.indirect.Part(uint64(head)*size, uint64(len(segments)*virtqueue.DescSize))
	for i, s := range segments {
		d := descriptor(s, i >= readable)
		if i < len(segments)-1 {
			d.Flags |= virtqueue.DescNext
			d.Next = uint16(i + 1)
		}
		d.Put(table.Bytes[i*virtqueue.DescSize:])
	}
	r.PutDesc(head, virtqueue.Desc{Addr: table.GuestAddr, Len: uint32(len(table.Bytes)), Flags: virtqueue.DescIndirect})
	r.take(head, r.next[head], 1)
	return head, nil
}

func descriptor(s Segment, writable bool) virtqueue.Desc {
	d := virtqueue.Desc{Addr: s.Addr, Len: s.Len}
	if writable {
		d.Flags = virtqueue.DescWrite
	}
	return d
}

// take removes a chain from the free list, whose rest begins at free, and puts it
// into the avail ring.
func (r *Ring) take(head, free uint16, n int) {
	r.length[head] = uint16(n)
	r.freeHead, r.freeLen = free, r.freeLen-n
	r.AddHead(head)
}

// PutDesc writes any descriptor into the table.
func (r *Ring) PutDesc(i uint16, d virtqueue.Desc) {
	d.Put(r.Desc.Bytes[int(i)*virtqueue.DescSize:])
}

// AddHead puts any head into the avail ring.
func (r *Ring) AddHead(head uint16) {
	putUint16(r.Avail.Bytes, virtqueue.AvailRingOffset+2*int(r.avail&r.mask), head)
	r.avail++
}

// Head is what stands in the avail ring at an index.
func (r *Ring) Head(index uint16) uint16 {
	return getUint16(r.Avail.Bytes, virtqueue.AvailRingOffset+2*int(index&r.mask))
}

// SetAvailIndex changes the index that the next Publish shows.
func (r *Ring) SetAvailIndex(index uint16) { r.avail = index }

// Publish shows the device what was added.
func (r *Ring) Publish() {
	r.shown = r.avail
	r.storeAvail()
}

func (r *Ring) storeAvail() {
	storeWord(r.Avail.Bytes, virtqueue.AvailFlagsOffset, uint32(r.flags)|uint32(r.shown)<<16)
}

// NeedKick tells whether the device wants to be notified of what was published
// since the last call.
func (r *Ring) NeedKick() bool {
	before := r.notified
	r.notified = r.shown
	if before == r.shown {
		return false
	}
	if r.config.EventIdx {
		event := uint16(loadWord(r.Used.Bytes, virtqueue.AvailEventOffset(r.config.Size)))
		return virtqueue.NeedEvent(event, r.shown, before)
	}
	return loadWord(r.Used.Bytes, virtqueue.UsedFlagsOffset)&virtqueue.UsedNoNotify == 0
}

// Pending is how many used elements the device has published that Poll has not
// yet returned.
func (r *Ring) Pending() int {
	return int(r.deviceIndex() - r.used)
}

func (r *Ring) deviceIndex() uint16 {
	return uint16(loadWord(r.Used.Bytes, virtqueue.UsedFlagsOffset) >> 16)
}

// Poll takes used elements and frees their chains.
func (r *Ring) Poll(done []Used) (int, error) {
	pending := r.Pending()
	if pending > r.config.Size {
		return 0, fmt.Errorf("used index went from %d to %d: %w", r.used, r.deviceIndex(), ErrBackend)
	}
	n := min(pending, len(done))
	for i := range n {
		u, err := r.pollOne()
		if err != nil {
			return i, err
		}
		done[i] = u
	}
	return n, nil
}

func (r *Ring) pollOne() (Used, error) {
	at := virtqueue.UsedRingOffset + virtqueue.UsedElemSize*int(r.used&r.mask)
	id, length := *word(r.Used.Bytes, at), *word(r.Used.Bytes, at+4)
	if id >= uint32(r.config.Size) || r.length[id] == 0 {
		return Used{}, fmt.Errorf("used element %d names chain %d, which was not made available: %w", r.used, id, ErrBackend)
	}
	r.release(uint16(id))
	r.used++
	return Used{Head: uint16(id), Len: length}, nil
}

func (r *Ring) release(head uint16) {
	n, last := int(r.length[head]), head
	for range n - 1 {
		last = r.next[last]
	}
	r.next[last] = r.freeHead
	r.freeHead, r.freeLen = head, r.freeLen+n
	r.length[head] = 0
}

// RequestCall asks the device to notify of the next used element. It returns true
// when one is there already, and no notification may follow.
func (r *Ring) RequestCall() bool {
	if r.config.EventIdx {
		putUint16(r.Avail.Bytes, virtqueue.UsedEventOffset(r.config.Size), r.used)
	} else {
		r.flags = 0
	}
	// This store is also the barrier between used_event and the look at the index.
	r.storeAvail()
	return r.Pending() > 0
}

// SuppressCall tells the device that no notification is wanted. It is a hint.
func (r *Ring) SuppressCall() {
	if r.config.EventIdx {
		putUint16(r.Avail.Bytes, virtqueue.UsedEventOffset(r.config.Size), r.used-1)
		return
	}
	r.flags = virtqueue.AvailNoInterrupt
	r.storeAvail()
}
