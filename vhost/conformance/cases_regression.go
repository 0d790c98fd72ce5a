package conformance

import (
	"bytes"
	"math"

	"sealblk/vhost/frontend"
	"sealblk/vhost/virtqueue"
)

// regressionCases are what was seen to break in other servers. One of them cannot
// be seen from a socket: an "encrypted" disk that is stored as it came.
var regressionCases = []Case{
	{Kind: Must, Rule: "GET_ID without a data buffer is answered", Spec: "virtio 5.2.6; seen: panic", run: getIDWithout},
	{Kind: Must, Rule: "lengths that add up to 4 GiB do not overflow", Spec: "virtio 2.7.5; seen: panic", run: overflow},
	{Kind: Must, Rule: "requests outside the disk are answered IOERR", Spec: "virtio 5.2.6.2; seen: no check of the capacity", run: outsideDisk},
	{Kind: Must, Rule: "a read is never cut short and called whole", Spec: "virtio 5.2.6.2; seen: short read reported as OK", run: wholeReads},
	{Kind: Must, Rule: "used lengths are what was written", Spec: "virtio 2.7.8.2; seen: always 0", run: usedLengths},
	{Kind: Must, Rule: "CONFIG_WCE comes with SET_CONFIG", Spec: "virtio 5.2.6.2; seen: offered without", run: writeCache},
	{Kind: Must, Rule: "a full queue of large requests is served", Spec: "virtio 2.7.6; seen: buffer pools exhausted, hang", run: fullOfLarge},
	{Kind: Must, Rule: "a batch is submitted whole", Spec: "virtio 2.7.6; seen: partial submission, hang", run: wholeBatch},
	{Kind: Must, Rule: "large requests are carried out whole", Spec: "virtio 5.2.6; seen: split wrongly", run: large},
	{Kind: Must, Rule: "large requests in odd pieces are carried out whole", Spec: "virtio 2.7.4.3; seen: split wrongly by the crypto layer", run: largeOdd},
	{Kind: Must, Rule: "every block has its own content", Spec: "virtio 5.2.6; seen: wrong tweak or offset in a part of a request", run: everyBlock},
	{Kind: Must, Rule: "a growing disk is announced on the back-end channel", Spec: "vhost-user, BACKEND_CONFIG_CHANGE_MSG; seen: resize never reaches the guest", run: grows},
}

// overflow describes 1024 times the same memory, or as much as the ring holds.
func overflow(x *rig) {
	d := x.open(frontend.Options{Layout: malformedLayout, QueueSize: min(1024, x.peer.maxQueueSize)})
	for _, typ := range []uint32{frontend.TypeOut, frontend.TypeIn} {
		c := x.chain(d, typ)
		flags := uint16(next)
		if typ == frontend.TypeIn {
			flags |= write
		}
		n := c.r.Size() - 2
		ds := []virtqueue.Desc{desc(c.header.Segment(), next, 1)}
		for i := range n {
			ds = append(ds, desc(frontend.Segment{Len: 8 * mib}, flags, uint16(i+2)))
		}
		c.put(append(ds, desc(c.status.Segment(), write, 0))...)
		x.rejected(c)
		if x.run(c) == completed {
			return // the ring goes on, and its chain is spent: one is enough
		}
	}
}

// wholeReads fills buffers with what is not on the disk before it reads.
func wholeReads(x *rig) {
	x.needsWritable()
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	const n = 256 << 10
	for _, off := range []int64{0, d.Capacity() - n} {
		want := random(int(off>>9), n)
		_, err := q.WriteAt(want, off)
		x.must(err)
		for _, tail := range []int{4096, 64 << 10, n} {
			r := x.request(q, frontend.TypeIn, uint64(off+int64(n-tail))/frontend.SectorSize, tail)
			copy(r.Data, bytes.Repeat([]byte{0xee}, tail))
			x.must(q.Do(r))
			x.wantWritten("read", r, tail+1)
			if !bytes.Equal(r.Data, want[n-tail:]) {
				x.errorf("the last %d bytes before %d are not what was written", tail, off+n)
			}
		}
	}
	r := x.request(q, frontend.TypeIn, d.Config.Capacity-x.sector(1), 2*x.peer.block)
	x.status(q, "half outside", r, frontend.StatusIOErr)
}

func writeCache(x *rig) {
	x.needs(frontend.FeatureConfigWCE, "CONFIG_WCE")
	d := x.open(frontend.Options{})
	for _, on := range []bool{false, true, false, true} {
		x.must(d.SetWriteCache(on))
		c, err := d.ReadConfig()
		x.must(err)
		if (c.Writeback != 0) != on {
			x.errorf("write cache %v: the configuration space says %d", on, c.Writeback)
		}
		x.verify(d.Queue(0), 0, random(8, 4096))
	}
}

// fullOfLarge has 128 MiB in flight, more than any pool of buffers holds.
func fullOfLarge(x *rig) {
	const size = mib
	d := x.open(frontend.Options{QueueSize: min(128, x.peer.maxQueueSize), Framing: frontend.FrameAtMost(128 << 10)})
	q := d.Queue(0)
	shared, err := d.Memory.Alloc(size, 4096)
	x.must(err)
	for _, typ := range []uint32{frontend.TypeIn, frontend.TypeOut} {
		if typ == frontend.TypeOut && x.peer.readOnly() {
			continue
		}
		n := 0
		for ; n < q.Ring.Size(); n++ {
			r := x.request(q, typ, uint64(n%8)*(size/frontend.SectorSize), 0)
			r.Segments = []frontend.Segment{shared.Segment()}
			if q.Submit(r) != nil {
				break // full
			}
		}
		x.must(q.Kick.Signal())
		x.drain(q, n)
	}
}

// wholeBatch makes many requests visible with a single kick.
func wholeBatch(x *rig) {
	size := x.peer.maxQueueSize
	d := x.open(frontend.Options{QueueSize: size})
	q := d.Queue(0)
	var batch []*frontend.Request
	for i := range size {
		batch = append(batch, x.read(q, i%1000))
	}
	for range 3 {
		n := 0
		for _, r := range batch {
			if q.Submit(r) != nil {
				break // full
			}
			n++
		}
		x.must(q.Kick.Signal())
		x.drain(q, n)
	}
}

// largeOdd cuts where no sector ends.
func largeOdd(x *rig) {
	x.needsWritable()
	for _, piece := range []uint32{32<<10 + 1, 65535, 100 << 10} {
		d := x.open(frontend.Options{Framing: frontend.FrameAtMost(piece)})
		q := d.Queue(0)
		const n = 2 * mib
		out, in := x.request(q, frontend.TypeOut, 24, n), x.request(q, frontend.TypeIn, 24, n)
		copy(out.Data, random(int(piece), n))
		x.must(q.Do(out))
		x.must(q.Do(in))
		if !bytes.Equal(in.Data, out.Data) {
			x.errorf("2 MiB in pieces of %d came back differently", piece)
		}
		x.must(d.Close())
	}
}

// everyBlock writes in large requests and reads block by block, and the reverse.
func everyBlock(x *rig) {
	x.needsWritable()
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	const at, n = 5 * mib, 512 << 10
	want := random(55, n)
	_, err := q.WriteAt(want, at)
	x.must(err)
	got := make([]byte, x.peer.block)
	for off := 0; off < n; off += 7 * len(got) {
		_, err := q.ReadAt(got, at+int64(off))
		x.must(err)
		if !bytes.Equal(got, want[off:off+len(got)]) {
			x.fatalf("the block at %d differs from what a large request wrote", at+off)
		}
	}
	for off := 0; off < n; off += 5 * len(got) {
		block := random(off, len(got))
		copy(want[off:], block)
		_, err := q.WriteAt(block, at+int64(off))
		x.must(err)
	}
	x.verifyRead(q, at, want)
}

// outsideDisk also shows that a refused write changes nothing.
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
	x.verifyRead(q, d.Capacity()-4096, random(1, 4096))
}
