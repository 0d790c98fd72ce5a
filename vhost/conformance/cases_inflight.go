package conformance

import (
	"encoding/binary"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

var inflightCases = []Case{
	{Kind: Must, Rule: "an in-flight region is as large as its queues need", Spec: "vhost-user, GET_INFLIGHT_FD", run: inflightSize},
	{Kind: Must, Rule: "a new in-flight region holds no request", Spec: "vhost-user, Inflight I/O tracking", run: inflightEmpty},
	{Kind: Must, Rule: "requests that completed are not in flight", Spec: "vhost-user, Inflight I/O tracking", run: inflightAfter},
	{Kind: Must, Rule: "requests in flight are carried out after a reconnect", Spec: "vhost-user, Inflight I/O tracking", run: inflightResubmitted},
	{Kind: Must, Rule: "requests in flight and new ones are carried out once each", Spec: "vhost-user, Inflight I/O tracking", run: inflightAndNew},
	{Kind: Must, Rule: "a request that was completed but not yet taken off is not repeated", Spec: "vhost-user, Inflight I/O tracking (last batch)", run: inflightRepair},
	{Kind: House, Rule: "an in-flight region that makes no sense does no harm", Spec: "vhost-user, SET_INFLIGHT_FD", run: inflightNonsense},
}

// Layout of an in-flight region of a split ring, version 1.
const (
	inflightVersion   = 8
	inflightDescNum   = 10
	inflightLastBatch = 12
	inflightUsedIdx   = 14
	inflightHeader    = 16
	inflightEntry     = 16
	inflightCounter   = 8 // in an entry
)

// region is an in-flight region, mapped.
type region struct {
	protocol.Inflight
	fd    int
	bytes []byte
}

// part is the piece of one queue.
func (r *region) part(queue int) []byte {
	size := len(r.bytes) / int(r.NumQueues)
	return r.bytes[queue*size:][:size]
}

func entry(part []byte, head int) []byte {
	return part[inflightHeader+head*inflightEntry:][:inflightEntry]
}

// inflight asks for a region.
func (x *rig) inflight(s *frontend.Session, queues, size int) *region {
	got, fd, err := s.GetInflightFD(uint16(queues), uint16(size))
	x.must(err)
	x.cleanup(func() { _ = unix.Close(fd) })
	need := queues * (inflightHeader + size*inflightEntry)
	if got.MmapSize < uint64(need) || got.MmapSize > 1<<30 {
		x.fatalf("a region of %d bytes for %d queues of %d", got.MmapSize, queues, size)
	}
	got.NumQueues, got.QueueSize = uint16(queues), uint16(size)
	// The offset is that of the front-end's mapping: a whole page.
	b, err := unix.Mmap(fd, int64(got.MmapOffset), int(got.MmapSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	x.must(err)
	x.cleanup(func() { _ = unix.Munmap(b) })
	return &region{got, fd, b}
}

// tracked is a disk, not started, and the region for its queue.
func (x *rig) tracked() (*frontend.Disk, *region) {
	x.needsProtocol(protocol.ProtocolInflightShmFD, "INFLIGHT_SHMFD")
	d := x.connect(frontend.Options{Without: noIndirect, QueueSize: min(64, x.peer.maxQueueSize)})
	x.must(d.Session.SetProtocolFeatures(d.ProtocolFeatures | 1<<protocol.ProtocolInflightShmFD))
	return d, x.inflight(d.Session, 1, d.Queue(0).Ring.Size())
}

// begin starts the ring of a tracked disk where its driver stands.
func (x *rig) begin(d *frontend.Disk, r *region) {
	q := d.Queue(0)
	x.share(d)
	x.must(d.Session.SetInflightFD(r.Inflight, r.fd))
	x.place(d, q, q.Kick.FD(), q.Call.FD())
	x.must(d.Session.SetVringEnable(0, true))
	x.must(q.Kick.Signal())
}

// again is the next session of the same driver, as after a crash: it has the same
// memory, rings and in-flight region.
func (x *rig) again(d *frontend.Disk) {
	s := x.session()
	features := d.ProtocolFeatures &^ (1 << protocol.ProtocolBackendReq)
	_, err := s.GetFeatures()
	x.must(err)
	x.must(s.SetProtocolFeatures(features | 1<<protocol.ProtocolInflightShmFD))
	x.must(s.SetOwner())
	_ = d.Reattach(s) // the session before may have ended in any way
}

func inflightSize(x *rig) {
	x.needsProtocol(protocol.ProtocolInflightShmFD, "INFLIGHT_SHMFD")
	s := x.acked()
	p, err := s.GetProtocolFeatures()
	x.must(err)
	x.must(s.SetProtocolFeatures(p & (1<<protocol.ProtocolReplyAck | 1<<protocol.ProtocolMQ | 1<<protocol.ProtocolInflightShmFD)))
	for _, size := range []int{4, 128, x.peer.maxQueueSize} {
		x.inflight(s, x.peer.queues, min(size, x.peer.maxQueueSize))
	}
}

func inflightEmpty(x *rig) {
	d, r := x.tracked()
	part := r.part(0)
	for head := range d.Queue(0).Ring.Size() {
		if entry(part, head)[0] != 0 {
			x.errorf("descriptor %d is in flight in a new region", head)
		}
	}
	if used := binary.LittleEndian.Uint16(part[inflightUsedIdx:]); used != 0 {
		x.errorf("used index %d in a new region", used)
	}
}

func inflightAfter(x *rig) {
	d, r := x.tracked()
	q := d.Queue(0)
	x.begin(d, r)
	for i := range 5 {
		x.verify(q, int64(i)<<20, random(i, 64<<10))
	}
	base, err := d.Session.GetVringBase(0)
	x.must(err)
	part := r.part(0)
	if v := binary.LittleEndian.Uint16(part[inflightVersion:]); v != 1 {
		x.errorf("version %d", v)
	}
	if n := binary.LittleEndian.Uint16(part[inflightDescNum:]); int(n) != q.Ring.Size() {
		x.errorf("desc_num %d, the ring has %d", n, q.Ring.Size())
	}
	if used := binary.LittleEndian.Uint16(part[inflightUsedIdx:]); used != uint16(base) {
		x.errorf("used index %d in the region, %d in the ring", used, base)
	}
	for head := range q.Ring.Size() {
		if entry(part, head)[0] != 0 {
			x.errorf("descriptor %d is still in flight", head)
		}
	}
}

// put writes into the region what a back-end writes when it takes a request, and
// crashes.
func (r *region) take(queue int, head uint16, counter uint64) {
	e := entry(r.part(queue), int(head))
	binary.LittleEndian.PutUint64(e[inflightCounter:], counter)
	e[0] = 1
}

// crash ends the session with n writes in the ring. The back-end before is made to
// look as if it had taken the first of them.
func (x *rig) crash(n, taken int) (*frontend.Disk, *region, []*frontend.Request) {
	x.needsWritable()
	d, r := x.tracked()
	q := d.Queue(0)
	x.begin(d, r)
	x.verify(q, areaOffset, random(1, 64<<10))
	_, err := d.Session.GetVringBase(0)
	x.must(err)
	var requests []*frontend.Request
	for i := range n {
		w := x.request(q, frontend.TypeOut, areaSector+uint64(i)*8, 4096)
		copy(w.Data, random(100+i, 4096))
		at := q.Ring.AvailIndex()
		x.must(q.Submit(w))
		if i < taken {
			// The later it was taken the larger the counter.
			r.take(0, q.Ring.Head(at), uint64(1000+i))
		}
		requests = append(requests, w)
	}
	x.again(d)
	return d, r, requests
}

func inflightResubmitted(x *rig) {
	d, r, requests := x.crash(8, 8)
	x.begin(d, r)
	x.finish(d, requests)
}

func inflightAndNew(x *rig) {
	d, r, requests := x.crash(12, 5)
	x.begin(d, r)
	x.finish(d, requests)
}

// finish waits for all requests; the driver below notices what comes twice.
func (x *rig) finish(d *frontend.Disk, requests []*frontend.Request) {
	q := d.Queue(0)
	x.drain(q, len(requests))
	readable(q.Err.FD(), silence)
	if n := q.Ring.Pending(); n != 0 {
		x.fatalf("%d completions too many", n)
	}
	for i := range requests {
		x.verifyRead(q, areaOffset+int64(i)*4096, random(100+i, 4096))
	}
	x.verify(q, areaOffset, random(2, 64<<10))
}

// inflightRepair crashes between the used index and the end of the record: the
// driver sees the request completed, the region says that it is in flight.
func inflightRepair(x *rig) {
	d, r := x.tracked()
	q := d.Queue(0)
	x.begin(d, r)
	at := q.Ring.AvailIndex()
	x.submit(q, x.read(q, 0))
	head := q.Ring.Head(at)
	x.await("a completion", func() bool { return q.Ring.Pending() > 0 })
	_, err := d.Session.GetVringBase(0)
	x.must(err)
	x.drain(q, 1)
	part := r.part(0)
	r.take(0, head, 2000)
	binary.LittleEndian.PutUint16(part[inflightLastBatch:], head)
	binary.LittleEndian.PutUint16(part[inflightUsedIdx:], q.Ring.UsedIndex()-1)
	x.again(d)
	x.begin(d, r)
	x.submit(q, x.read(q, 1), x.read(q, 2))
	x.finishReads(q, 2)
}

func (x *rig) finishReads(q *frontend.Queue, n int) {
	x.drain(q, n)
	readable(q.Err.FD(), silence)
	if k := q.Ring.Pending(); k != 0 {
		x.fatalf("%d completions too many", k)
	}
}

// inflightNonsense: the region comes from a front-end, whose memory it is.
func inflightNonsense(x *rig) {
	for _, spoil := range []func(part []byte){
		func(part []byte) { binary.LittleEndian.PutUint16(part[inflightVersion:], 9) },
		func(part []byte) { binary.LittleEndian.PutUint16(part[inflightDescNum:], 0xffff) },
		func(part []byte) { binary.LittleEndian.PutUint16(part[inflightLastBatch:], 0xffff) },
		func(part []byte) {
			for i := range part {
				part[i] = 0xff
			}
		},
	} {
		d, r := x.tracked()
		spoil(r.part(0))
		q := d.Queue(0)
		x.share(d)
		if d.Session.SetInflightFD(r.Inflight, r.fd) == nil {
			_ = d.Session.SetVringNum(0, uint32(q.Ring.Size()))
			_ = d.Session.SetVringBase(0, 0)
			_ = d.Session.SetVringAddr(q.Ring.Addr(0))
			_ = d.Session.SetVringKick(0, q.Kick.FD())
			_ = d.Session.SetVringEnable(0, true)
			x.must(q.Kick.Signal())
			_, _ = d.Session.GetFeatures()
		}
		x.must(d.Session.Close())
	}
}
