package blk

import (
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/vhost"
)

// slot is the state of one request on its way through the block device.
type slot struct {
	io      blockdev.Request
	request *vhost.Request
	status  []byte
	// segments are the ranges of a DISCARD or WRITE_ZEROES, with room for as many as
	// it may have; segment is the one to come.
	segments []segment
	segment  int
}

// queue serves the requests of one virtqueue.
type queue struct {
	device *Device
	bq     blockdev.Queue
	info   blockdev.Info
	// features are what the driver accepted. Without FLUSH, writes are durable by
	// themselves.
	features uint64
	count    *counters
	failed   bool // one request has; it was logged
	index    int

	slots []slot
	batch []*blockdev.Request // submitted to us, not yet to the block device
	ready []*vhost.Request    // answered, not yet polled
	done  []*blockdev.Request

	answersFirst bool // what was answered goes first in Poll
}

func newQueue(d *Device, bq blockdev.Queue, c vhost.QueueConfig) *queue {
	q := &queue{
		device: d, bq: bq, info: d.dev.Info(), index: c.Index,
		features: c.Features,
		count:    &d.counters[c.Index],
		slots:    make([]slot, c.Size),
		batch:    make([]*blockdev.Request, 0, c.Size),
		ready:    make([]*vhost.Request, 0, c.Size),
		done:     make([]*blockdev.Request, c.Size),
	}
	segments := make([]segment, c.Size*maxSegments)
	for i := range q.slots {
		q.slots[i].io.Tag = uint64(i)
		q.slots[i].segments = segments[i*maxSegments : i*maxSegments : (i+1)*maxSegments]
	}
	return q
}

// Submit reads the request and puts it in the batch, or answers it at once.
func (q *queue) Submit(v *vhost.Request) error {
	r, err := parse(&v.Chain)
	if err != nil {
		return err
	}
	s := &q.slots[v.Slot]
	s.request, s.status = v, r.status
	if !r.complete {
		return q.refuse(s)
	}
	switch r.typ {
	case typeIn:
		return q.transfer(s, blockdev.Read, &r, r.in, r.inLen)
	case typeOut:
		return q.transfer(s, blockdev.Write, &r, r.out, r.outLen)
	case typeFlush:
		return q.flush(s)
	case typeGetID:
		return q.getID(s, &r)
	case typeDiscard:
		return q.erase(s, blockdev.Discard, &r)
	case typeWriteZeroes:
		return q.erase(s, blockdev.WriteZeroes, &r)
	}
	return q.unsupported(s)
}

// transfer submits a read or write that lies within the device.
func (q *queue) transfer(s *slot, op blockdev.Op, r *request, data [][]byte, n uint64) error {
	if op == blockdev.Write && q.device.readOnly || !q.inside(r.sector, n) {
		return q.refuse(s)
	}
	if n == 0 {
		return q.answer(s, statusOK, 0)
	}
	s.io.Op = op
	s.io.FUA = op == blockdev.Write && q.writeThrough()
	s.io.Offset, s.io.Length = int64(r.sector<<sectorShift), int64(n)
	s.io.Buffers = data
	q.batch = append(q.batch, &s.io)
	return nil
}

func (q *queue) writeThrough() bool {
	return q.features&(1<<featureFlush) == 0 || !q.device.writeback.Load()
}

// inside checks range and alignment of a transfer. A length that the used ring
// cannot tell is outside every device.
func (q *queue) inside(sector, n uint64) bool { return q.within(sector, n) && n < math.MaxUint32 }

// within checks range and alignment. The device may have grown since it was asked.
func (q *queue) within(sector, n uint64) bool {
	if !fits(&q.info, sector, n) {
		q.info = q.device.dev.Info()
	}
	return fits(&q.info, sector, n)
}

func fits(info *blockdev.Info, sector, n uint64) bool {
	capacity := uint64(info.Capacity)
	return sector <= capacity>>sectorShift && n <= capacity-sector<<sectorShift &&
		(sector<<sectorShift|n)&uint64(info.LogicalBlockSize-1) == 0
}

func (q *queue) flush(s *slot) error {
	s.io.Op, s.io.FUA = blockdev.Flush, false
	s.io.Offset, s.io.Length, s.io.Buffers = 0, 0, nil
	q.batch = append(q.batch, &s.io)
	return nil
}

func (q *queue) getID(s *slot, r *request) error {
	if r.inLen < idSize {
		return q.refuse(s)
	}
	scatter(r.in, q.device.id[:])
	q.count.ids.Add(1)
	return q.answer(s, statusOK, idSize)
}

// refuse answers a request that makes no sense for this device.
func (q *queue) refuse(s *slot) error {
	q.count.invalid.Add(1)
	return q.answer(s, statusIOErr, 0)
}

// unsupported answers a request of a kind, or with a flag, that is not served.
func (q *queue) unsupported(s *slot) error {
	q.count.unsupported.Add(1)
	return q.answer(s, statusUnsupp, 0)
}

// answer completes a request that the block device does not see.
func (q *queue) answer(s *slot, status byte, n uint32) error {
	finish(s, status, n)
	q.ready = append(q.ready, s.request)
	return nil
}

// finish stores the answer; n is the length of the data that was written.
func finish(s *slot, status byte, n uint32) {
	s.status[0] = status
	s.request.Written = n + statusSize
	s.status, s.io.Buffers = nil, nil
}

// Push hands the batch to the block device.
func (q *queue) Push() {
	q.bq.Submit(q.batch...)
	q.batch = q.batch[:0]
	q.bq.Push()
}

// Poll returns what was answered, and what the block device completed. Either comes
// first in turn, so that a driver that asks for much of one still gets the other.
func (q *queue) Poll(done []*vhost.Request) (n int) {
	if q.answersFirst = !q.answersFirst; q.answersFirst {
		n = q.answered(done)
	}
	n += q.completed(done[n:])
	return n + q.answered(done[n:])
}

// answered stores requests that the block device did not see.
func (q *queue) answered(done []*vhost.Request) int {
	n := copy(done, q.ready)
	q.ready = q.ready[:copy(q.ready, q.ready[n:])]
	return n
}

// completed stores requests that the block device is done with. One with ranges left goes
// back to the block device, which may be done with it at once.
func (q *queue) completed(done []*vhost.Request) (n int) {
	for {
		k := q.bq.Poll(q.done[:min(len(done)-n, len(q.done))])
		for _, io := range q.done[:k] {
			s := &q.slots[io.Tag]
			if s.goesOn() {
				q.batch = append(q.batch, io)
				continue
			}
			q.complete(s)
			done[n] = s.request
			n++
		}
		if len(q.batch) == 0 {
			return n
		}
		q.Push()
	}
}

func (q *queue) complete(s *slot) {
	if s.io.Err != nil {
		q.fail(s)
		return
	}
	n := uint64(s.io.Length)
	switch s.io.Op {
	case blockdev.Read:
		q.count.reads.Add(1)
		q.count.bytesRead.Add(n)
		finish(s, statusOK, uint32(n))
		return
	case blockdev.Write:
		q.count.writes.Add(1)
		q.count.bytesWritten.Add(n)
	case blockdev.Discard:
		q.count.discards.Add(1)
	case blockdev.WriteZeroes:
		q.count.zeroes.Add(1)
	default:
		q.count.flushes.Add(1)
	}
	finish(s, statusOK, 0)
}

func (q *queue) fail(s *slot) {
	if errors.Is(s.io.Err, unix.ENOSPC) {
		q.count.noSpace.Add(1)
	} else {
		q.count.failed.Add(1)
	}
	if !q.failed {
		q.failed = true
		q.device.opts.Logger.Warn("request failed, more will only be counted",
			"ring", q.index, "op", s.io.Op, "offset", s.io.Offset, "length", s.io.Length, "err", s.io.Err)
	}
	finish(s, statusIOErr, 0)
}

// WaitFD is the block device's.
func (q *queue) WaitFD() int { return q.bq.WaitFD() }

// Close closes the block device's queue.
func (q *queue) Close() error {
	defer q.device.gate.leave()
	return q.bq.Close()
}
