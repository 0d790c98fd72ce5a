package virtqueue

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"sealblk/vhost/memory"
)

// MinIndirect is the least bound of an indirect table, in descriptors. A table may
// be as long as the queue (clause 2.7.5.3.1), and a longer one is accepted up to
// this: the Linux driver goes by the device's segment limit alone, which a small
// queue does not lower.
const MinIndirect = 1024

// Config describes a virtqueue.
type Config struct {
	// Size in descriptors, a power of two up to 32768.
	Size int
	// Desc, Avail and Used are the parts of the ring, as long as DescTableSize,
	// AvailSize and UsedSize say, in shared memory.
	Desc, Avail, Used []byte
	// NextAvail is the index of the first chain to take. Where the used ring goes
	// on is read from the ring.
	NextAvail uint16
	// Indirect and EventIdx are the ring features that were negotiated.
	Indirect, EventIdx bool
	// Writes makes chains tell the guest-physical addresses of what they let the
	// device write: what a dirty log needs.
	Writes bool
}

func (c *Config) check() error {
	if !ValidSize(c.Size) {
		return fmt.Errorf("size %d: %w", c.Size, ErrSize)
	}
	for _, part := range []struct {
		name  string
		bytes []byte
		want  int
		align uintptr
	}{
		{"descriptor table", c.Desc, DescTableSize(c.Size), DescAlign},
		{"avail ring", c.Avail, AvailSize(c.Size), AvailAlign},
		{"used ring", c.Used, UsedSize(c.Size), UsedAlign},
	} {
		if len(part.bytes) != part.want {
			return fmt.Errorf("%s of %d bytes, not %d: %w", part.name, len(part.bytes), part.want, ErrLength)
		}
		if !aligned(part.bytes, part.align) {
			return fmt.Errorf("%s: %w", part.name, ErrAlignment)
		}
	}
	return nil
}

// Queue is the device side of a split virtqueue. It belongs to one goroutine.
type Queue struct {
	cfg  Config
	mask uint16

	nextAvail uint16 // the next entry to take
	seenAvail uint16 // the driver's index when it was last read

	nextUsed   uint16 // the next element to fill
	published  uint16 // the index that the driver sees
	neverAsked bool   // needNotify was not called since the start
	asked      uint16 // what published was when it was last called
	usedFlags  uint16
	fence      atomic.Uint32
	parse      parser
}

// New attaches to a ring in shared memory. Buffers are looked up in table.
func New(cfg Config, table *memory.Table) (*Queue, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("open virtqueue: %w", err)
	}
	used := loadUint16(cfg.Used, UsedIdxOffset)
	q := &Queue{
		cfg: cfg, mask: uint16(cfg.Size - 1),
		nextAvail: cfg.NextAvail, seenAvail: cfg.NextAvail,
		nextUsed: used, published: used, asked: used, neverAsked: true,
		parse: newParser(&cfg),
	}
	if !cfg.EventIdx { // a device that died may have left a flag there
		q.usedFlags = loadUint16(cfg.Used, UsedFlagsOffset)
	}
	q.SetMemory(table)
	return q, nil
}

// SetMemory makes the chains to come look up their buffers in another table. The
// rings stay where they are.
func (q *Queue) SetMemory(table *memory.Table) { q.parse.view = table.View() }

// Size is the queue size.
func (q *Queue) Size() int { return q.cfg.Size }

// NextAvail is the index of the next chain to take: where a successor goes on.
func (q *Queue) NextAvail() uint16 { return q.nextAvail }

// UsedIndex is the index that the driver sees: how many chains were returned.
func (q *Queue) UsedIndex() uint16 { return q.published }

// Seek makes next the index of the next chain to take.
func (q *Queue) Seek(next uint16) { q.nextAvail, q.seenAvail = next, next }

// Retake takes a chain that a predecessor took and did not return. Nothing that it
// checked is known any more, so all is read and checked again. The avail ring is not
// touched.
func (q *Queue) Retake(c *Chain, head uint16) error {
	if int(head) >= q.cfg.Size {
		return fmt.Errorf("take chain again, head %d: %w", head, ErrHead)
	}
	if err := q.parse.parse(c, head); err != nil {
		return fmt.Errorf("take chain again, head %d: %w", head, err)
	}
	return nil
}

// Pop takes the next chain into c and reports whether there was one. Neither the
// chain nor its table is looked at again, so nothing that the guest does later
// changes what was checked. The avail index is read only when all chains that it
// showed before are taken.
//
// After an error the ring is broken. It stands before the bad entry and must not
// be used further, but for chains that were taken before.
func (q *Queue) Pop(c *Chain) (bool, error) {
	if q.nextAvail == q.seenAvail {
		if more, err := q.refresh(); !more || err != nil {
			return false, err
		}
	}
	head := readUint16(q.cfg.Avail, AvailRingOffset+2*int(q.nextAvail&q.mask))
	if int(head) >= q.cfg.Size {
		return false, fmt.Errorf("take chain at avail index %d, head %d: %w", q.nextAvail, head, ErrHead)
	}
	if err := q.parse.parse(c, head); err != nil {
		return false, fmt.Errorf("take chain at avail index %d, head %d: %w", q.nextAvail, head, err)
	}
	q.nextAvail++
	return true, nil
}

// refresh reads the driver's index: an acquire, after which the entries and
// descriptors that it covers are visible.
func (q *Queue) refresh() (more bool, err error) {
	idx := loadUint16(q.cfg.Avail, AvailIdxOffset)
	if int(idx-q.nextAvail) > q.cfg.Size {
		return false, fmt.Errorf("read avail index %d at %d: %w", idx, q.nextAvail, ErrAvailIdx)
	}
	q.seenAvail = idx
	return idx != q.nextAvail, nil
}

// Pending reports whether the driver has made a chain available that was not taken.
func (q *Queue) Pending() bool {
	return q.nextAvail != q.seenAvail || q.nextAvail != loadUint16(q.cfg.Avail, AvailIdxOffset)
}

// PushUsed stores a used element: a chain that is done, and how many bytes were
// written to it. The driver sees it after Publish.
func (q *Queue) PushUsed(head uint16, written uint32) {
	off := UsedRingOffset + UsedElemSize*int(q.nextUsed&q.mask)
	elem := q.cfg.Used[off : off+UsedElemSize]
	binary.LittleEndian.PutUint32(elem[0:4], uint32(head))
	binary.LittleEndian.PutUint32(elem[4:8], written)
	q.nextUsed++
}

// Publish shows the driver the used elements and all writes before it, and then
// reports whether the driver wants to be notified. Of a batch only one publish and
// one notification is needed.
func (q *Queue) Publish() (notify bool) {
	if q.nextUsed == q.published {
		return false
	}
	q.published = q.nextUsed
	q.storeUsed()
	return q.needNotify()
}

// storeUsed publishes flags and index. They are one aligned word that only the
// device writes, so one atomic store does: it releases what precedes it and, being
// sequentially consistent, is a full barrier for the loads of needNotify.
func (q *Queue) storeUsed() {
	storeUint32(q.cfg.Used, UsedFlagsOffset, uint32(q.usedFlags)|uint32(q.published)<<16)
}

func (q *Queue) needNotify() bool {
	if !q.cfg.EventIdx {
		return loadUint16(q.cfg.Avail, AvailFlagsOffset)&AvailNoInterrupt == 0
	}
	event := loadUint16(q.cfg.Avail, UsedEventOffset(q.cfg.Size))
	before, first := q.asked, q.neverAsked
	q.asked, q.neverAsked = q.published, false
	return first || NeedEvent(event, q.published, before)
}

// NotifyAtStart reports whether the driver may be owed a notification by whoever
// served the ring before and died between publishing and notifying. A used index of 0
// is that of a ring that is new, unless the caller knows that it was served.
func (q *Queue) NotifyAtStart(served bool) bool {
	return (served || q.published != 0) &&
		(q.cfg.EventIdx || loadUint16(q.cfg.Avail, AvailFlagsOffset)&AvailNoInterrupt == 0)
}

// EnableKicks asks the driver to notify about the next chain, and reports whether
// there is one already, which the driver may not notify about: whoever wants to
// sleep takes that first.
func (q *Queue) EnableKicks() (pending bool, err error) {
	if q.cfg.EventIdx {
		writeUint16(q.cfg.Used, AvailEventOffset(q.cfg.Size), q.nextAvail)
		q.fence.Add(1) // a full barrier: the store above before the load below
	} else if q.usedFlags != 0 {
		q.usedFlags = 0
		q.storeUsed()
	}
	return q.refresh()
}

// DisableKicks tells the driver that there is no need to notify. With event
// indexes there is nothing to do: the index that was asked for has passed.
func (q *Queue) DisableKicks() {
	if !q.cfg.EventIdx && q.usedFlags == 0 {
		q.usedFlags = UsedNoNotify
		q.storeUsed()
	}
}
