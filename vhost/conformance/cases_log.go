package conformance

import (
	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

var logCases = []Case{
	{Kind: Must, Rule: "the pages of a read are logged", Spec: "vhost-user, Migration", run: logsReads},
	{Kind: Must, Rule: "the used ring is logged if that is asked for", Spec: "vhost-user, SET_VRING_ADDR (log)", run: logsUsedRing},
	{Kind: House, Rule: "pages that are only read from are not logged", Spec: "vhost-user, Migration", run: logsNoWrites},
	{Kind: Must, Rule: "logging ends with LOG_ALL", Spec: "vhost-user, Migration", run: logEnds},
	{Kind: House, Rule: "a log that is too small is not overrun", Spec: "vhost-user, SET_LOG_BASE", run: smallLog},
	{Kind: House, Rule: "the log's descriptor is closed and its memory unmapped with the session", Spec: "vhost-user, SET_LOG_BASE", run: logUnmapped},
}

const logPage = 4096

// dirtyLog is the bitmap of pages that a back-end wrote to.
type dirtyLog struct {
	fd   int
	bits []byte
}

func (l *dirtyLog) has(addr uint64) bool {
	page := addr / logPage
	return l.bits[page/8]&(1<<(page%8)) != 0
}

// logged is a disk whose back-end logs, and the log. The data of requests lies at
// logData and up.
func (x *rig) logged(size int) (*frontend.Disk, *dirtyLog) {
	x.needsProtocol(protocol.ProtocolLogShmFD, "LOG_SHMFD")
	x.needs(protocol.FeatureLogAll, "LOG_ALL")
	d := x.connect(frontend.Options{Layout: []frontend.RegionLayout{{Size: 16 * mib}, {GuestAddr: logData, Size: mib}}})
	x.must(d.Session.SetProtocolFeatures(d.ProtocolFeatures | 1<<protocol.ProtocolLogShmFD))
	x.share(d)
	l := &dirtyLog{fd: x.memfd(int64(size))}
	var err error
	l.bits, err = unix.Mmap(l.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	x.must(err)
	x.cleanup(func() {
		if l.bits != nil {
			_ = unix.Munmap(l.bits)
		}
	})
	x.must(d.Session.SetLogBase(protocol.Log{Size: uint64(size)}, l.fd))
	x.must(d.Session.SetFeatures(d.Features | 1<<protocol.FeatureLogAll))
	q := d.Queue(0)
	a := q.Ring.Addr(0)
	a.Flags, a.Log = protocol.VringAddrLog, q.Ring.Used.GuestAddr
	x.must(d.Session.SetVringNum(0, uint32(q.Ring.Size())))
	x.must(d.Session.SetVringBase(0, 0))
	x.must(d.Session.SetVringAddr(a))
	x.must(d.Session.SetVringCall(0, q.Call.FD()))
	x.must(d.Session.SetVringKick(0, q.Kick.FD()))
	x.must(d.Session.SetVringEnable(0, true))
	x.must(q.Kick.Signal())
	return d, l
}

const (
	logData = 32 * mib
	// logSize covers all memory up to logData + 1 MiB, in whole pages.
	logSize = 2 * 4096
)

// at makes a request use the pages at an address.
func (x *rig) at(q *frontend.Queue, typ uint32, addr uint64, n uint32) *frontend.Request {
	r := x.request(q, typ, 0, 0)
	r.Segments = []frontend.Segment{{Addr: addr, Len: n}}
	return r
}

func logsReads(x *rig) {
	d, l := x.logged(logSize)
	q := d.Queue(0)
	x.must(q.Do(x.at(q, frontend.TypeIn, logData+8192, 3*logPage)))
	x.must(q.Do(x.at(q, frontend.TypeIn, logData+40*logPage+100, logPage)))
	for _, page := range []uint64{2, 3, 4, 40, 41} {
		if !l.has(logData + page*logPage) {
			x.errorf("page %d was written to and is not in the log", page)
		}
	}
	for _, page := range []uint64{0, 1, 5, 6, 39, 42} {
		if l.has(logData + page*logPage) {
			x.errorf("page %d was not written to and is in the log", page)
		}
	}
}

func logsUsedRing(x *rig) {
	d, l := x.logged(logSize)
	q := d.Queue(0)
	x.must(q.Do(x.at(q, frontend.TypeIn, logData, logPage)))
	if !l.has(q.Ring.Used.GuestAddr) {
		x.errorf("the used ring is not in the log")
	}
}

func logsNoWrites(x *rig) {
	x.needsWritable()
	d, l := x.logged(logSize)
	q := d.Queue(0)
	x.must(q.Do(x.at(q, frontend.TypeOut, logData+8*logPage, 4*logPage)))
	for page := uint64(8); page < 12; page++ {
		if l.has(logData + page*logPage) {
			x.errorf("page %d was only read from", page)
		}
	}
}

func logEnds(x *rig) {
	d, l := x.logged(logSize)
	q := d.Queue(0)
	x.must(q.Do(x.at(q, frontend.TypeIn, logData, logPage)))
	x.must(d.Session.SetFeatures(d.Features))
	x.alive(d.Session)
	clear(l.bits)
	x.must(q.Do(x.at(q, frontend.TypeIn, logData, logPage)))
	if l.has(logData) || l.has(q.Ring.Used.GuestAddr) {
		x.errorf("the log went on")
	}
}

// smallLog ends before the data. The requests must go on, or be refused with the
// log; the back-end must not fall over.
func smallLog(x *rig) {
	x.needsProtocol(protocol.ProtocolLogShmFD, "LOG_SHMFD")
	x.needs(protocol.FeatureLogAll, "LOG_ALL")
	d := x.connect(frontend.Options{})
	x.must(d.Session.SetProtocolFeatures(d.ProtocolFeatures | 1<<protocol.ProtocolLogShmFD))
	x.share(d)
	fd := x.memfd(4096)
	for _, l := range []protocol.Log{{Size: 16}, {Size: 1 << 20}, {Size: 4096, Offset: 1 << 40}, {Size: 1 << 63, Offset: 1 << 63}} {
		if err := d.Session.SetLogBase(l, fd); err != nil {
			return // refused
		}
		if err := d.Session.SetFeatures(d.Features | 1<<protocol.FeatureLogAll); err != nil {
			return
		}
		x.alive(d.Session)
	}
}

func logUnmapped(x *rig) {
	d, l := x.logged(logSize)
	x.must(d.Queue(0).Do(x.at(d.Queue(0), frontend.TypeIn, logData, logPage)))
	x.must(d.Session.Close())
	bits := l.bits
	x.must(unix.Munmap(bits))
	l.bits = nil
	x.wantUnmapped("the log", l.fd)
}
