package conformance

import (
	"bytes"
	"math"

	"sealblk/vhost/frontend"
)

var blockCases = []Case{
	{Kind: Must, Rule: "an unknown type is answered UNSUPP", Spec: "virtio 5.2.6.2", run: unknownTypes},
	{Kind: Must, Rule: "types that were not offered are answered UNSUPP", Spec: "virtio 5.2.6", run: notOffered},
	{Kind: Must, Rule: "requests outside the disk are answered IOERR", Spec: "virtio 5.2.6.2", run: outsideDisk},
	{Kind: Must, Rule: "the last sector can be used", Spec: "virtio 5.2.6", run: lastSector},
	{Kind: Must, Rule: "lengths that are no multiple of a sector are answered IOERR", Spec: "virtio 5.2.6.1", run: misaligned},
	{Kind: Must, Rule: "used lengths are what was written", Spec: "virtio 2.7.8.2", run: usedLengths},
	{Kind: Must, Rule: "GET_ID needs no buffer", Spec: "virtio 5.2.6", run: getIDWithout},
	{Kind: Must, Rule: "GET_ID fits its buffer", Spec: "virtio 5.2.6", run: getIDShort},
	{Kind: Must, Rule: "large requests are carried out whole", Spec: "virtio 5.2.6", run: large},
	{Kind: Must, Rule: "a request of no data is answered", Spec: "virtio 5.2.6", run: noData},
	{Kind: Must, Rule: "a flush is answered", Spec: "virtio 5.2.6", run: flush},
	{Kind: Must, Rule: "a failed read says so, and the next one is served", Spec: "virtio 5.2.6", run: afterFailure},
	{Kind: Must, Rule: "buffers need no alignment", Spec: "virtio 2.7.4", run: unalignedBuffers},
	{Kind: Must, Rule: "one request reads into the same memory twice", Spec: "virtio 2.7.4", run: sameMemory},
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

func unknownTypes(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	for _, typ := range []uint32{2, 3, 5, 6, 7, 9, 15, 77, 1 << 31, math.MaxUint32} {
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

func outsideDisk(x *rig) {
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	end := d.Config.Capacity
	x.verify(q, d.Capacity()-4096, random(1, 4096))
	for _, typ := range []uint32{frontend.TypeIn, frontend.TypeOut} {
		for _, sector := range []uint64{end, end - 1, end - 7, end + 1, 1 << 40, 1 << 54, 1<<55 - 1, math.MaxUint64 - 7, math.MaxUint64} {
			x.status(q, "outside", x.request(q, typ, sector, 4096), frontend.StatusIOErr)
		}
	}
	got := make([]byte, 4096)
	if _, err := q.ReadAt(got, d.Capacity()-4096); err != nil || !bytes.Equal(got, random(1, 4096)) {
		x.errorf("a refused write reached the disk (%v)", err)
	}
}

func lastSector(x *rig) {
	d := x.open(frontend.Options{})
	bs := 512
	if d.Has(frontend.FeatureBlkSize) {
		bs = int(d.Config.BlkSize)
	}
	x.verify(d.Queue(0), d.Capacity()-int64(bs), random(2, bs))
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
		{frontend.TypeOut, 8192, 1}, {frontend.TypeIn, 512, 513}, {frontend.TypeIn, 8192, 8193},
		{frontend.TypeFlush, 0, 1}, {frontend.TypeGetID, frontend.IDSize, frontend.IDSize + 1},
	} {
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
	x.verify(q, 0, random(3, 512))
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
			x.verify(q, 0, random(i, 512))
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
