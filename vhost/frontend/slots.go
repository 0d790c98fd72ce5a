package frontend

import (
	"encoding/binary"
	"fmt"
	"time"

	"sealblk/vhost/virtqueue"

	"golang.org/x/sys/unix"
)

// SlotsConfig is the shape of Slots.
type SlotsConfig struct {
	// Count is how many requests there are, all of which may be in flight.
	Count int
	// Size of each request's data, in bytes.
	Size int
	// Indirect lets each chain take one descriptor of the ring instead of three.
	Indirect bool
	// PollsPerYield is how often Wait looks at the ring before it offers the CPU to
	// other threads; 0 is 16384. It counts with [Options].Polling only.
	PollsPerYield int
}

// Completion is a request that the device returned.
type Completion struct {
	Slot   int
	Status byte
}

// Err is the request's outcome as an error.
func (c Completion) Err() error { return statusError(c.Status) }

// Slots are read and write requests of one size whose chains stand ready in the
// descriptor table: what a load generator needs, at the least cost for each request.
// They take the whole ring of their queue; its other methods that submit or poll are
// not to be used beside them.
//
//	Put ... Put, Submit          shows a batch and kicks if the back-end asks for it
//	Wait, Poll                   waits for slots; returns them, free again
//
// The data of a slot belongs to the back-end from Put until the slot is returned.
type Slots struct {
	queue  *Queue
	ring   *Ring
	slots  []slot
	byHead []int32 // -1: no chain begins there
	yield  int
	free   int
}

// slot is one request. Header and status share a cache line, which goes to the
// device and back once.
type slot struct {
	head   uint16
	busy   bool
	typ    uint32
	line   []byte
	data   Block
	flags  []byte // of the descriptor that names the data
	status *byte
}

const (
	cacheLine            = 64
	chainLength          = 3 // header, data, status
	defaultPollsPerYield = 16384
	descFlagsOffset      = 12
)

// NewSlots makes requests in the disk's guest memory. The queue has to be idle.
func NewSlots(q *Queue, c SlotsConfig) (*Slots, error) {
	setDefault(&c.PollsPerYield, defaultPollsPerYield)
	stride := chainLength
	if c.Indirect {
		stride = 1
	}
	if c.Count < 1 || c.Size < 1 || c.Count*stride > q.Ring.Size() || q.count > 0 {
		return nil, fmt.Errorf("%d requests of %d bytes in a ring of %d: %w", c.Count, c.Size, q.Ring.Size(), ErrConfig)
	}
	s := &Slots{queue: q, ring: q.Ring, slots: make([]slot, c.Count), byHead: make([]int32, q.Ring.Size()), yield: c.PollsPerYield, free: c.Count}
	for i := range s.byHead {
		s.byHead[i] = -1
	}
	for i := range s.slots {
		if err := s.build(i, i*stride, c); err != nil {
			return nil, err
		}
	}
	q.Ring.freeLen = 0
	q.Ring.SuppressCall()
	return s, nil
}

// build lays out a slot and its chain, as a read.
func (s *Slots) build(i, head int, c SlotsConfig) error {
	m := s.queue.memory
	line, err := m.Alloc(cacheLine, cacheLine)
	if err != nil {
		return fmt.Errorf("allocate request: %w", err)
	}
	data, err := m.Alloc(uint64(c.Size), dataAlign)
	if err != nil {
		return fmt.Errorf("allocate request: %w", err)
	}
	table, base := s.ring.Desc.Bytes[head*virtqueue.DescSize:], head
	if c.Indirect {
		b, err := m.Alloc(chainLength*virtqueue.DescSize, cacheLine)
		if err != nil {
			return fmt.Errorf("allocate request: %w", err)
		}
		s.ring.PutDesc(uint16(head), virtqueue.Desc{Addr: b.GuestAddr, Len: uint32(len(b.Bytes)), Flags: virtqueue.DescIndirect})
		table, base = b.Bytes, 0
	}
	putChain(table, base, line, data)
	s.slots[i] = slot{
		head: uint16(head), line: line.Bytes, data: data, status: &line.Bytes[headerSize],
		flags: table[virtqueue.DescSize+descFlagsOffset : virtqueue.DescSize+descFlagsOffset+2],
	}
	s.byHead[head] = int32(i)
	return nil
}

// putChain writes the three descriptors of a read to table, of which the first is
// number base.
func putChain(table []byte, base int, line, data Block) {
	for i, d := range [chainLength]virtqueue.Desc{
		{Addr: line.GuestAddr, Len: headerSize, Flags: virtqueue.DescNext, Next: uint16(base + 1)},
		{Addr: data.GuestAddr, Len: uint32(len(data.Bytes)), Flags: virtqueue.DescNext | virtqueue.DescWrite, Next: uint16(base + 2)},
		{Addr: line.GuestAddr + headerSize, Len: statusSize, Flags: virtqueue.DescWrite},
	} {
		d.Put(table[i*virtqueue.DescSize:])
	}
}

// Data is a slot's buffer.
func (s *Slots) Data(i int) []byte { return s.slots[i].data.Bytes }

// InFlight is how many slots the back-end has.
func (s *Slots) InFlight() int { return len(s.slots) - s.free }

// Put makes a free slot a TypeIn or TypeOut at a sector and puts it into the ring.
// The back-end sees it after Submit.
func (s *Slots) Put(i int, typ uint32, sector uint64) {
	t := &s.slots[i]
	if typ != t.typ {
		t.turn(typ)
	}
	binary.LittleEndian.PutUint64(t.line, uint64(typ))
	binary.LittleEndian.PutUint64(t.line[8:headerSize], sector)
	*t.status = statusUnset
	t.busy = true
	s.free--
	s.ring.AddHead(t.head)
}

// turn changes the direction of the data.
func (t *slot) turn(typ uint32) {
	flags := uint16(virtqueue.DescNext | virtqueue.DescWrite)
	if deviceReads(typ) {
		flags = virtqueue.DescNext
	}
	putUint16(t.flags, 0, flags)
	t.typ = typ
}

// Submit shows what was put to the back-end and kicks it if it asked for that.
func (s *Slots) Submit() error {
	s.queue.Counters.Submitted += uint64(s.ring.avail - s.ring.shown)
	s.ring.Publish()
	return s.queue.Notify()
}

// Poll stores returned slots in done and tells how many. It does not wait.
func (s *Slots) Poll(done []Completion) (int, error) {
	r := s.ring
	pending := r.Pending()
	if pending > len(s.slots)-s.free {
		return 0, fmt.Errorf("used index went from %d to %d: %w", r.used, r.deviceIndex(), ErrBackend)
	}
	n := min(pending, len(done))
	for k := range n {
		at := virtqueue.UsedRingOffset + virtqueue.UsedElemSize*int(r.used&r.mask)
		id := *word(r.Used.Bytes, at)
		i := int32(-1)
		if id < uint32(len(s.byHead)) {
			i = s.byHead[id]
		}
		if i < 0 || !s.slots[i].busy {
			return k, fmt.Errorf("used element %d names chain %d, which was not made available: %w", r.used, id, ErrBackend)
		}
		t := &s.slots[i]
		t.busy = false
		s.free++
		r.used++
		done[k] = Completion{Slot: int(i), Status: *t.status}
	}
	return n, nil
}

// Wait waits until at least one slot is returned and can be polled.
func (s *Slots) Wait() error {
	if s.ring.Pending() > 0 {
		return nil
	}
	s.queue.Counters.Waits++
	if s.queue.polling {
		return s.spin()
	}
	return s.sleep()
}

// yieldsPerCheck is how many times spin yields between two looks at the connection,
// which cost a system call and a time stamp.
const yieldsPerCheck = 16

func (s *Slots) spin() error {
	var deadline time.Time
	for i := 1; ; i++ {
		for range s.yield {
			if s.ring.Pending() > 0 {
				return nil
			}
		}
		unix.RawSyscallNoError(unix.SYS_SCHED_YIELD, 0, 0, 0)
		if i%yieldsPerCheck != 0 {
			continue
		}
		if deadline.IsZero() {
			deadline = s.queue.deadline()
		}
		if err := s.queue.waitCall(0, deadline); err != nil {
			return err
		}
	}
}

func (s *Slots) sleep() error {
	deadline := s.queue.deadline()
	for {
		if !s.ring.RequestCall() {
			if err := s.queue.waitCall(time.Until(deadline), deadline); err != nil {
				return err
			}
		}
		s.ring.SuppressCall()
		if s.ring.Pending() > 0 {
			return nil
		}
	}
}
