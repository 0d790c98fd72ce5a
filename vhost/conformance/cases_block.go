package conformance

import (
	"bytes"
	"math"

	"sealblk/vhost/frontend"
)

var blockCases = []Case{
	{Kind: Must, Rule: "a read-only disk refuses writes", Spec: "virtio 5.2.6.2", run: readOnlyWrites},
	{Kind: Must, Rule: "a read-only disk is read", Spec: "virtio 5.2.6", run: readOnlyReads},
	{Kind: House, Rule: "requests for a part of a block are answered", Spec: "virtio 5.2.4 leaves it open", run: partOfBlock},
	{Kind: Must, Rule: "GET_ID is the same on every queue", Spec: "virtio 5.2.6", run: sameID},
	{Kind: Must, Rule: "a write is seen on every queue", Spec: "virtio 5.2.6", run: seenEverywhere},
	{Kind: Must, Rule: "the last write to a block counts", Spec: "virtio 5.2.6", run: lastWrite},
	{Kind: Must, Rule: "an unknown type is answered UNSUPP", Spec: "virtio 5.2.6.2", run: unknownTypes},
	{Kind: House, Rule: "types that were not offered are answered UNSUPP", Spec: "virtio 5.2.6", run: notOffered},
	{Kind: Must, Rule: "the last sector can be used", Spec: "virtio 5.2.6", run: lastSector},
	{Kind: House, Rule: "lengths that are no multiple of a sector are answered IOERR", Spec: "virtio 5.2.6.1", run: misaligned},
	{Kind: House, Rule: "GET_ID fits its buffer", Spec: "virtio 5.2.6", run: getIDShort},
	{Kind: House, Rule: "a request of no data is answered", Spec: "virtio 5.2.6", run: noData},
	{Kind: Must, Rule: "a flush is answered", Spec: "virtio 5.2.6", run: flush},
	{Kind: Must, Rule: "a failed read says so, and the next one is served", Spec: "virtio 5.2.6", run: afterFailure},
	{Kind: Must, Rule: "buffers need no alignment", Spec: "virtio 2.7.4", run: unalignedBuffers},
	{Kind: House, Rule: "one request reads into the same memory twice", Spec: "virtio 2.7.4", run: sameMemory},
}

// status sends a request and compares the answer.
func (x *rig) status(q *frontend.Queue, what string, r *frontend.Request, want byte) {
	_ = q.Do(r) // the status says it too
	if r.Status != want {
		x.errorf("%s: status %d, want %d", what, r.Status, want)
	}
	if want != frontend.StatusOK && r.Written == 0 {
		x.errorf("%s: used length 0 with a status written", what)
	}
}

// unknownTypes leaves bit 31 alone, which was a barrier once.
func unknownTypes(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	for _, typ := range []uint32{2, 3, 5, 6, 7, 9, 15, 77, 1 << 30, math.MaxUint32 >> 1} {
		for _, n := range []int{0, 512} {
			x.status(q, "unknown type", x.request(q, typ, 0, n), frontend.StatusUnsupp)
		}
	}
}

func notOffered(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	for typ, feature := range map[uint32]uint{frontend.TypeDiscard: frontend.FeatureDiscard, frontend.TypeWriteZeroes: frontend.FeatureWriteZeroes, 14: 16} {
		if !d.Has(feature) {
			x.status(q, "type that was not offered", x.request(q, typ, 0, 16), frontend.StatusUnsupp)
		}
	}
}

func lastSector(x *rig) {
	d := x.open(frontend.Options{})
	x.verify(d.Queue(0), d.Capacity()-int64(x.peer.block), random(2, x.peer.block))
}

func misaligned(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	for _, n := range []int{1, 511, 513, 4095} {
		for _, typ := range []uint32{frontend.TypeIn, frontend.TypeOut} {
			x.status(q, "misaligned", x.request(q, typ, 0, n), frontend.StatusIOErr)
		}
	}
}

func usedLengths(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	for _, tt := range []struct {
		typ  uint32
		n    int
		want uint32
	}{
		{frontend.TypeOut, 8192, 1}, {frontend.TypeIn, 4096, 4097}, {frontend.TypeIn, 8192, 8193},
		{frontend.TypeFlush, 0, 1}, {frontend.TypeGetID, frontend.IDSize, frontend.IDSize + 1},
	} {
		if tt.typ == frontend.TypeOut && x.peer.readOnly() || tt.typ == frontend.TypeFlush && !d.Has(frontend.FeatureFlush) {
			continue
		}
		r := x.request(q, tt.typ, 0, tt.n)
		x.must(q.Do(r))
		if r.Written != tt.want {
			x.errorf("type %d with %d bytes: used length %d, want %d", tt.typ, tt.n, r.Written, tt.want)
		}
	}
}

// getIDWithout has made another back-end panic.
func getIDWithout(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	r := x.request(q, frontend.TypeGetID, 0, 0)
	if err := q.Do(r); err != nil && r.Status == unset {
		x.must(err)
	}
	x.verify(q, 0, random(3, x.peer.block))
}

func getIDShort(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	id, err := q.GetID()
	x.must(err)
	for _, n := range []int{1, 19, 21, 512} {
		r := x.request(q, frontend.TypeGetID, 0, n)
		clear(r.Data)
		if err := q.Do(r); err != nil {
			if r.Status == unset {
				x.must(err)
			}
			continue
		}
		want := append([]byte(id), make([]byte, 512)...)[:n]
		if n > frontend.IDSize {
			want = want[:frontend.IDSize]
		}
		if !bytes.Equal(r.Data[:len(want)], want) {
			x.errorf("id in %d bytes: %q", n, r.Data)
		}
	}
}

func large(x *rig) {
	d := x.open(frontend.Options{Framing: frontend.FrameAtMost(64 << 10)})
	q := d.Queue(0)
	const n = 6 * mib
	x.needsWritable()
	out, in := x.request(q, frontend.TypeOut, 16, n), x.request(q, frontend.TypeIn, 16, n)
	copy(out.Data, random(4, n))
	x.must(q.Do(out))
	x.must(q.Do(in))
	if !bytes.Equal(in.Data, out.Data) {
		x.errorf("came back differently")
	}
	if in.Written != n+1 {
		x.errorf("used length %d", in.Written)
	}
}

func noData(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	for _, typ := range []uint32{frontend.TypeIn, frontend.TypeOut} {
		r := x.request(q, typ, 0, 0)
		if err := q.Do(r); err != nil && r.Status == unset {
			x.must(err)
		}
	}
}

func flush(x *rig) {
	d := x.open(frontend.Options{Queues: 2})
	if !d.Has(frontend.FeatureFlush) {
		x.skipf("FLUSH is not offered")
	}
	x.verify(d.Queue(0), 0, random(5, 4096))
	x.must(d.Queue(1).Flush())
	r := x.request(d.Queue(0), frontend.TypeFlush, 0, 0)
	r.Sector = 1 << 60 // reserved; a device does not look at it
	_ = d.Queue(0).Do(r)
	if r.Status == unset {
		x.errorf("a flush with a sector was not answered")
	}
}

func afterFailure(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	for i := range 300 { // more often than there are slots of any kind
		x.status(q, "outside", x.request(q, frontend.TypeIn, math.MaxUint64, 512), frontend.StatusIOErr)
		if i%50 == 0 {
			x.verify(q, 0, random(i, x.peer.block))
		}
	}
}

func unalignedBuffers(x *rig) {
	d := x.open(frontend.Options{})
	b, err := d.Memory.Alloc(64<<10, 4096)
	x.must(err)
	for _, off := range []uint64{1, 3, 511, 513, 4095} {
		x.roundTrip(d, b.GuestAddr+off, 8192)
	}
}

// sameMemory is odd and legal; what the buffer holds after it is not specified.
func sameMemory(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	r := x.request(q, frontend.TypeIn, 0, 4096)
	s := frontend.Segment{Addr: 4 * mib, Len: 2048}
	r.Segments = []frontend.Segment{s, s}
	x.must(q.Do(r))
}

func readOnlyWrites(x *rig) {
	if !x.peer.readOnly() {
		x.skipf("the disk is writable")
	}
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	before := make([]byte, 64<<10)
	_, err := q.ReadAt(before, 0)
	x.must(err)
	for _, n := range []int{x.peer.block, 4096, 64 << 10} {
		r := x.request(q, frontend.TypeOut, 0, n)
		copy(r.Data, random(n, n))
		x.status(q, "write", r, frontend.StatusIOErr)
	}
	after := make([]byte, len(before))
	_, err = q.ReadAt(after, 0)
	x.must(err)
	if !bytes.Equal(after, before) {
		x.errorf("a refused write reached the disk")
	}
}

func readOnlyReads(x *rig) {
	if !x.peer.readOnly() {
		x.skipf("the disk is writable")
	}
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	_, err := q.ReadAt(make([]byte, mib), 0)
	x.must(err)
	if d.Has(frontend.FeatureFlush) {
		x.must(q.Flush())
	}
}

// partOfBlock: blk_size is advice, so such a request may be served; if it is, its
// neighbours stay as they were.
func partOfBlock(x *rig) {
	if x.peer.block == frontend.SectorSize {
		x.skipf("blocks are as small as requests")
	}
	x.needsWritable()
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	want := random(9, 2*x.peer.block)
	x.verify(q, 0, want)
	for _, sector := range []uint64{0, 1, 7} {
		r := x.request(q, frontend.TypeOut, sector, frontend.SectorSize)
		copy(r.Data, random(int(sector), frontend.SectorSize))
		if err := q.Do(r); err == nil {
			copy(want[sector*frontend.SectorSize:], r.Data)
		} else if r.Status != frontend.StatusIOErr {
			x.errorf("sector %d: %v", sector, err)
		}
	}
	x.verifyRead(q, 0, want)
}

func sameID(x *rig) {
	d := x.open(frontend.Options{Queues: min(2, x.peer.queues)})
	first, err := d.Queue(0).GetID()
	x.must(err)
	for _, q := range d.Queues() {
		id, err := q.GetID()
		x.must(err)
		if id != first {
			x.errorf("%q and %q", first, id)
		}
	}
}

func seenEverywhere(x *rig) {
	d := x.open(frontend.Options{Queues: min(4, x.peer.queues)})
	for i, q := range d.Queues() {
		data := random(60+i, 32<<10)
		x.verify(q, mib, data)
		for _, other := range d.Queues() {
			x.verifyRead(other, mib, data)
		}
	}
}

func lastWrite(x *rig) {
	d := x.open(frontend.Options{})
	for i := range 50 {
		x.verify(d.Queue(0), 3*mib, random(i, x.peer.block))
	}
}
