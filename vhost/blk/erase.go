package blk

import (
	"encoding/binary"

	"sealblk/blockdev"
)

const (
	// maxSegments is how many ranges one request may name.
	maxSegments = 16
	segmentSize = 16

	// maxDiscardSectors is the longest range of a DISCARD, in sectors: 2 GiB, one
	// call to the file system.
	maxDiscardSectors = 1 << 22
	// maxWriteZeroesSectors is that of a WRITE_ZEROES, which may mean to write all of
	// it: 32 MiB, so that a ring is not long in draining.
	maxWriteZeroesSectors = 1 << 16

	// flagUnmap allows a WRITE_ZEROES to deallocate.
	flagUnmap = 1 << 0
)

// segment is our copy of one range of a DISCARD or WRITE_ZEROES (clause 5.2.6,
// struct virtio_blk_discard_write_zeroes).
type segment struct {
	sector  uint64
	sectors uint32
	flags   uint32
}

// readSegments copies the ranges of a request, once, to the memory of dst. What is
// no whole range, no range at all, or more than we announced is not ok.
func readSegments(dst []segment, data [][]byte, n uint64) (_ []segment, ok bool) {
	var raw [maxSegments * segmentSize]byte
	if n == 0 || n%segmentSize != 0 || n > uint64(len(raw)) {
		return nil, false
	}
	at := 0
	for _, p := range data {
		at += copy(raw[at:], p)
	}
	for b := raw[:n]; len(b) > 0; b = b[segmentSize:] {
		dst = append(dst, segment{
			sector:  binary.LittleEndian.Uint64(b),
			sectors: binary.LittleEndian.Uint32(b[8:]),
			flags:   binary.LittleEndian.Uint32(b[12:]),
		})
	}
	return dst, true
}

// erase submits the first range of a DISCARD or WRITE_ZEROES; the others follow one
// by one as it completes, so that a request has one operation in flight like any
// other. Nothing is done unless all of them are in order.
func (q *queue) erase(s *slot, op blockdev.Op, r *request) error {
	feature, most := featureDiscard, uint32(maxDiscardSectors)
	if op == blockdev.WriteZeroes {
		feature, most = featureWriteZeroes, maxWriteZeroesSectors
	}
	if q.features&(1<<feature) == 0 {
		return q.unsupported(s)
	}
	segments, ok := readSegments(s.segments[:0], r.out, r.outLen)
	if !ok {
		return q.refuse(s)
	}
	if !knownFlags(op, segments) {
		return q.unsupported(s)
	}
	for i := range segments {
		if c := &segments[i]; c.sectors > most || !q.within(c.sector, uint64(c.sectors)<<sectorShift) {
			return q.refuse(s)
		}
	}
	s.segments, s.segment = segments, 0
	s.io.Op, s.io.Buffers, s.io.FUA = op, nil, q.writeThrough()
	if !s.next() {
		return q.answer(s, statusOK, 0)
	}
	q.batch = append(q.batch, &s.io)
	return nil
}

// knownFlags: a DISCARD has none.
func knownFlags(op blockdev.Op, segments []segment) bool {
	known := uint32(0)
	if op == blockdev.WriteZeroes {
		known = flagUnmap
	}
	for i := range segments {
		if segments[i].flags&^known != 0 {
			return false
		}
	}
	return true
}

// next makes the request that of the next range with anything in it, and reports
// whether there was one.
func (s *slot) next() bool {
	for s.segment < len(s.segments) {
		c := &s.segments[s.segment]
		s.segment++
		if c.sectors != 0 {
			s.io.Offset, s.io.Length = int64(c.sector<<sectorShift), int64(c.sectors)<<sectorShift
			s.io.MayUnmap = c.flags&flagUnmap != 0
			return true
		}
	}
	return false
}

// goesOn reports whether a request that came back has ranges left, of which it then
// is the next.
func (s *slot) goesOn() bool {
	return s.io.Err == nil && (s.io.Op == blockdev.Discard || s.io.Op == blockdev.WriteZeroes) && s.next()
}
