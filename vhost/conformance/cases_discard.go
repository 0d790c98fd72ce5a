package conformance

import (
	"bytes"
	"encoding/binary"
	"math"

	"sealblk/vhost/frontend"
)

const (
	segmentSize = 16
	flagUnmap   = 1
)

var discardCases = []Case{
	{Kind: Must, Rule: "the limits of DISCARD make sense", Spec: "virtio 5.2.4", run: discardLimits},
	{Kind: Must, Rule: "the limits of WRITE_ZEROES make sense", Spec: "virtio 5.2.4", run: zeroesLimits},
	{Kind: Must, Rule: "zeroed sectors read as zeros without unmap", Spec: "virtio 5.2.6.2", run: func(x *rig) { zeroed(x, frontend.TypeWriteZeroes, 0) }},
	{Kind: Must, Rule: "zeroed sectors read as zeros with unmap", Spec: "virtio 5.2.6.2", run: func(x *rig) { zeroed(x, frontend.TypeWriteZeroes, flagUnmap) }},
	{Kind: House, Rule: "discarded sectors read as zeros", Spec: "virtio 5.2.6.2 leaves their content open", run: func(x *rig) { zeroed(x, frontend.TypeDiscard, 0) }},
	{Kind: Must, Rule: "discarded sectors can be written again", Spec: "virtio 5.2.6", run: discardRewrite},
	{Kind: Must, Rule: "DISCARD leaves its neighbours alone", Spec: "virtio 5.2.6", run: func(x *rig) { neighbours(x, frontend.TypeDiscard) }},
	{Kind: Must, Rule: "WRITE_ZEROES leaves its neighbours alone", Spec: "virtio 5.2.6", run: func(x *rig) { neighbours(x, frontend.TypeWriteZeroes) }},
	{Kind: House, Rule: "DISCARD takes as many segments as it offers", Spec: "virtio 5.2.5", run: func(x *rig) { manySegments(x, frontend.TypeDiscard) }},
	{Kind: Must, Rule: "WRITE_ZEROES takes as many segments as it offers", Spec: "virtio 5.2.5", run: func(x *rig) { manySegments(x, frontend.TypeWriteZeroes) }},
	{Kind: House, Rule: "DISCARD beyond its limits is refused", Spec: "virtio 5.2.6.1", run: func(x *rig) { tooMuch(x, frontend.TypeDiscard) }},
	{Kind: House, Rule: "WRITE_ZEROES beyond its limits is refused", Spec: "virtio 5.2.6.1", run: func(x *rig) { tooMuch(x, frontend.TypeWriteZeroes) }},
	{Kind: House, Rule: "DISCARD outside the disk is answered IOERR", Spec: "virtio 5.2.6.2", run: func(x *rig) { segmentsOutside(x, frontend.TypeDiscard) }},
	{Kind: House, Rule: "WRITE_ZEROES outside the disk is answered IOERR", Spec: "virtio 5.2.6.2", run: func(x *rig) { segmentsOutside(x, frontend.TypeWriteZeroes) }},
	{Kind: Must, Rule: "DISCARD with unknown flags is answered UNSUPP", Spec: "virtio 5.2.6.2", run: func(x *rig) { unknownFlags(x, frontend.TypeDiscard) }},
	{Kind: Must, Rule: "DISCARD with the unmap flag is answered UNSUPP", Spec: "virtio 5.2.6.2", run: discardUnmap},
	{Kind: Must, Rule: "WRITE_ZEROES with unknown flags is answered UNSUPP", Spec: "virtio 5.2.6.2", run: func(x *rig) { unknownFlags(x, frontend.TypeWriteZeroes) }},
	{Kind: House, Rule: "DISCARD of no whole segment is answered", Spec: "virtio 5.2.6.1", run: func(x *rig) { oddSegments(x, frontend.TypeDiscard) }},
	{Kind: House, Rule: "WRITE_ZEROES of no whole segment is answered", Spec: "virtio 5.2.6.1", run: func(x *rig) { oddSegments(x, frontend.TypeWriteZeroes) }},
	{Kind: Must, Rule: "segments may be cut into any descriptors", Spec: "virtio 2.7.4.3", run: cutSegments},
}

// segment is one range of a DISCARD or WRITE_ZEROES.
type segment struct {
	sector uint64
	n      uint32
	flags  uint32
}

func (x *rig) needsOp(typ uint32) {
	x.needsWritable()
	if typ == frontend.TypeDiscard {
		x.needs(frontend.FeatureDiscard, "DISCARD")
		return
	}
	x.needs(frontend.FeatureWriteZeroes, "WRITE_ZEROES")
}

// limits of an operation: segments in a request, sectors in a segment.
func (p *peer) limits(typ uint32) (segments, sectors uint32) {
	if typ == frontend.TypeDiscard {
		return p.config.MaxDiscardSeg, p.config.MaxDiscardSectors
	}
	return p.config.MaxWriteZeroesSeg, p.config.MaxWriteZeroes
}

// ranges makes a request of segments.
func (x *rig) ranges(q *frontend.Queue, typ uint32, segments ...segment) *frontend.Request {
	r := x.request(q, typ, 0, segmentSize*len(segments))
	for i, s := range segments {
		b := r.Data[segmentSize*i:]
		binary.LittleEndian.PutUint64(b, s.sector)
		binary.LittleEndian.PutUint32(b[8:], s.n)
		binary.LittleEndian.PutUint32(b[12:], s.flags)
	}
	return r
}

func discardLimits(x *rig) {
	x.needsOp(frontend.TypeDiscard)
	c := &x.peer.config
	if c.MaxDiscardSectors == 0 || c.MaxDiscardSeg == 0 {
		x.errorf("max_discard_sectors %d, max_discard_seg %d", c.MaxDiscardSectors, c.MaxDiscardSeg)
	}
	if block := uint32(x.peer.block / frontend.SectorSize); c.DiscardAlignment%block != 0 {
		x.errorf("discard_sector_alignment %d is no multiple of a block of %d sectors", c.DiscardAlignment, block)
	}
}

func zeroesLimits(x *rig) {
	x.needsOp(frontend.TypeWriteZeroes)
	if seg, n := x.peer.limits(frontend.TypeWriteZeroes); seg == 0 || n == 0 {
		x.errorf("max_write_zeroes_sectors %d, max_write_zeroes_seg %d", n, seg)
	}
}

// area is where these cases work, in bytes and in sectors.
const (
	areaOffset = 2 * mib
	areaSector = areaOffset / frontend.SectorSize
	areaSize   = mib
)

func zeroed(x *rig, typ, flags uint32) {
	x.needsOp(typ)
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	x.verify(q, areaOffset, random(1, areaSize))
	r := x.ranges(q, typ, segment{areaSector, areaSize / frontend.SectorSize, flags})
	x.must(q.Do(r))
	x.wantWritten("used length", r, 1)
	x.verifyRead(q, areaOffset, make([]byte, areaSize))
	x.verifyRead(q, areaOffset, make([]byte, areaSize)) // nor is it a matter of luck
}

func discardRewrite(x *rig) {
	x.needsOp(frontend.TypeDiscard)
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	x.must(q.Do(x.ranges(q, frontend.TypeDiscard, segment{areaSector, areaSize / frontend.SectorSize, 0})))
	if _, err := q.ReadAt(make([]byte, areaSize), areaOffset); err != nil {
		x.errorf("read after discard: %v", err)
	}
	x.verify(q, areaOffset+64<<10, random(2, 64<<10))
}

// neighbours takes ranges of single blocks, at their most awkward places.
func neighbours(x *rig, typ uint32) {
	x.needsOp(typ)
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	block, size := x.peer.block, 256<<10
	for _, first := range []int{1, 7, 8, 9, 15, 31} {
		for _, n := range []int{1, 2, 7, 9} {
			want := random(first*16+n, size)
			x.verify(q, areaOffset, want)
			x.must(q.Do(x.ranges(q, typ, segment{areaSector + x.sector(first), uint32(x.sector(n)), 0})))
			got := make([]byte, size)
			_, err := q.ReadAt(got, areaOffset)
			x.must(err)
			a, b := first*block, (first+n)*block
			if !bytes.Equal(got[:a], want[:a]) || !bytes.Equal(got[b:], want[b:]) {
				x.fatalf("%d blocks from block %d on took others with them", n, first)
			}
		}
	}
}

func manySegments(x *rig, typ uint32) {
	x.needsOp(typ)
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	n, _ := x.peer.limits(typ)
	n = min(n, 64)
	x.verify(q, areaOffset, random(3, areaSize))
	var segments []segment
	for i := range n {
		segments = append(segments, segment{areaSector + x.sector(int(2*i)), uint32(x.sector(1)), 0})
	}
	x.must(q.Do(x.ranges(q, typ, segments...)))
	want, block := random(3, areaSize), x.peer.block
	for i := range int(n) {
		clear(want[2*i*block:][:block])
	}
	x.verifyRead(q, areaOffset, want)
}

func tooMuch(x *rig, typ uint32) {
	x.needsOp(typ)
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	seg, sectors := x.peer.limits(typ)
	if seg < 4096 {
		x.refusedRequest(q, "one segment more than offered", x.ranges(q, typ, make([]segment, seg+1)...))
	}
	if uint64(sectors) < d.Config.Capacity {
		x.refusedRequest(q, "one block more than offered", x.ranges(q, typ, segment{0, sectors + uint32(x.sector(1)), 0}))
	}
}

// refusedRequest wants any failure.
func (x *rig) refusedRequest(q *frontend.Queue, what string, r *frontend.Request) {
	if err := q.Do(r); err == nil {
		x.errorf("%s: status 0", what)
	} else if r.Status == unset {
		x.fatalf("%s: %v", what, err)
	}
}

func segmentsOutside(x *rig, typ uint32) {
	x.needsOp(typ)
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	end, one := d.Config.Capacity, uint32(x.sector(1))
	x.verify(q, d.Capacity()-4096, random(4, 4096))
	for _, s := range []segment{{end, one, 0}, {end - uint64(one), 2 * one, 0}, {math.MaxUint64 - uint64(one) + 1, one, 0}, {1 << 55, one, 0}, {end + 1<<32, one, 0}} {
		x.status(q, "outside", x.ranges(q, typ, s), frontend.StatusIOErr)
	}
	x.verifyRead(q, d.Capacity()-4096, random(4, 4096))
}

func unknownFlags(x *rig, typ uint32) {
	x.needsOp(typ)
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	for _, flags := range []uint32{2, 1 << 31, math.MaxUint32 &^ flagUnmap} {
		x.status(q, "unknown flags", x.ranges(q, typ, segment{areaSector, uint32(x.sector(1)), flags}), frontend.StatusUnsupp)
	}
}

func discardUnmap(x *rig) {
	x.needsOp(frontend.TypeDiscard)
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	x.status(q, "unmap", x.ranges(q, frontend.TypeDiscard, segment{areaSector, uint32(x.sector(1)), flagUnmap}), frontend.StatusUnsupp)
}

func oddSegments(x *rig, typ uint32) {
	x.needsOp(typ)
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	for _, n := range []int{1, 15, 17, 31} {
		x.refusedRequest(q, "a part of a segment", x.request(q, typ, 0, n))
	}
	for what, r := range map[string]*frontend.Request{
		"no segment": x.request(q, typ, 0, 0), "no sectors": x.ranges(q, typ, segment{areaSector, 0, 0}),
	} {
		if err := q.Do(r); err != nil && r.Status == unset {
			x.fatalf("%s: %v", what, err)
		}
	}
}

func cutSegments(x *rig) {
	typ := frontend.TypeDiscard
	if !x.peer.has(frontend.FeatureDiscard) {
		typ = frontend.TypeWriteZeroes
	}
	x.needsOp(typ)
	d := x.open(frontend.Options{Framing: frontend.FrameAtMost(5)})
	q := d.Queue(0)
	x.must(q.Do(x.ranges(q, typ, segment{areaSector, uint32(x.sector(1)), 0})))
}
