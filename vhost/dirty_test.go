package vhost_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/internal/eventfd"
	"sealblk/vhost"
	"sealblk/vhost/dirtylog"
	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

const (
	logAll = 1 << protocol.FeatureLogAll
	// logEnd is the end of guest memory in these tests.
	logEnd = 32 << 20
)

// migration is a disk whose front-end logs writes.
type migration struct {
	*frontend.Disk
	t     *testing.T
	log   *frontend.DirtyLog
	ended <-chan error
}

// migrate begins to log while the rings run, in QEMU's order.
func migrate(t *testing.T, o frontend.Options) *migration {
	t.Helper()
	dev, _ := newDevice(t)
	o.Layout = []frontend.RegionLayout{{Size: logEnd / 2}, {GuestAddr: logEnd / 2, Size: logEnd / 2, File: 1}}
	d, ended := start(t, dev, o)
	roundTrip(t, d.Queue(0))
	m := &migration{d, t, newLog(t, logEnd, 4096+12), ended}
	must(t, d.Session.SetLogBase(m.log.Payload(), m.log.FD))
	must(t, d.Session.SetFeatures(d.Features|logAll))
	m.logRings(true)
	m.log.Take() // the first round of a migration copies everything
	return m
}

func newLog(t *testing.T, end, offset uint64) *frontend.DirtyLog {
	t.Helper()
	l, err := frontend.NewDirtyLog(end, offset)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func (m *migration) logRings(on bool) {
	m.t.Helper()
	for _, q := range m.Queues() {
		must(m.t, m.Session.SetVringAddr(loggedAddr(q, on)))
	}
}

func loggedAddr(q *frontend.Queue, on bool) *protocol.VringAddr {
	a := q.Ring.Addr(uint32(q.Index()))
	a.Log = q.Ring.Used.GuestAddr
	if on {
		a.Flags = protocol.VringAddrLog
	}
	return a
}

// Where the tests place what a request needs. The rings lie below, the second half
// of guest memory is another file.
const (
	headerAt = 4 << 20
	statusAt = 5<<20 + 4095
	dataAt   = logEnd/2 - 6000 // buffers begin in one region and end in the other
)

// transfer submits one request by hand and waits for it: its data is one buffer that
// the device reads or writes.
func (m *migration) transfer(q *frontend.Queue, typ uint32, sector uint64, data frontend.Segment) (status byte) {
	m.t.Helper()
	header := make([]byte, 16)
	binary.LittleEndian.PutUint32(header, typ)
	binary.LittleEndian.PutUint64(header[8:], sector)
	at := uint64(q.Index()) << 13
	must(m.t, m.Memory.Write(header, headerAt+at))
	must(m.t, m.Memory.Write([]byte{0xff}, statusAt+at))
	chain, readable := []frontend.Segment{{Addr: headerAt + at, Len: 16}, data, {Addr: statusAt + at, Len: 1}}, 1
	if typ == frontend.TypeOut {
		readable = 2
	}
	_, err := q.Ring.Add(chain, readable)
	must(m.t, err)
	q.Ring.Publish()
	must(m.t, q.Kick.Signal())
	used := make([]frontend.Used, 1)
	until(m.t, "the request", func() bool { n, err := q.Ring.Poll(used); must(m.t, err); return n == 1 })
	b := make([]byte, 1)
	must(m.t, m.Memory.Read(b, statusAt+at))
	return b[0]
}

// pages are those of a range.
func pages(addr, n uint64) (all []uint64) {
	for a := addr &^ 4095; a < addr+n; a += dirtylog.PageSize {
		all = append(all, a)
	}
	return all
}

func usedPages(q *frontend.Queue) []uint64 {
	return pages(q.Ring.Used.GuestAddr, uint64(virtqueue.UsedSize(q.Ring.Size())))
}

// settled takes the marks when the ring has nothing more to do.
func (m *migration) settled(q *frontend.Queue) []uint64 {
	m.t.Helper()
	_, err := m.Session.GetVringBase(uint32(q.Index()))
	must(m.t, err)
	marked := m.log.Take()
	must(m.t, m.Session.SetVringKick(uint8(q.Index()), q.Kick.FD()))
	return marked
}

// TestEveryWriteIsMarked: data, status and used ring, page for page.
func TestEveryWriteIsMarked(t *testing.T) {
	for name, without := range map[string]uint64{"": 0, "no events": 1 << virtqueue.FeatureEventIdx, "no indirect": 1 << virtqueue.FeatureIndirectDesc} {
		t.Run(name, func(t *testing.T) {
			m := migrate(t, frontend.Options{Without: without})
			q := m.Queue(0)
			for _, c := range []struct {
				typ    uint32
				sector uint64
				data   frontend.Segment
				status byte
				writes bool // the device may write the data
			}{
				{frontend.TypeOut, 0, frontend.Segment{Addr: 8 << 20, Len: 1 << 20}, 0, false},
				{frontend.TypeIn, 8, frontend.Segment{Addr: 8 << 20, Len: 4096}, 0, true},
				{frontend.TypeIn, 0, frontend.Segment{Addr: 8<<20 + 4095, Len: 512}, 0, true},
				{frontend.TypeIn, 0, frontend.Segment{Addr: dataAt, Len: 300 << 10}, 0, true},
				{frontend.TypeGetID, 0, frontend.Segment{Addr: dataAt, Len: 20}, 0, true},
				{frontend.TypeFlush, 0, frontend.Segment{}, 0, false},
				{frontend.TypeIn, 0, frontend.Segment{Addr: logEnd - 512, Len: 512}, 0, true},
				{frontend.TypeIn, capacity / 512, frontend.Segment{Addr: 8 << 20, Len: 512}, 1, true},
				{99, 0, frontend.Segment{}, 2, false},
			} {
				m.settled(q)
				if got := m.transfer(q, c.typ, c.sector, c.data); got != c.status {
					t.Fatalf("%+v: status %d", c, got)
				}
				want := append(usedPages(q), pages(statusAt, 1)...)
				if c.writes {
					want = append(want, pages(c.data.Addr, uint64(c.data.Len))...)
				}
				slices.Sort(want)
				if got := m.settled(q); !slices.Equal(got, slices.Compact(want)) {
					t.Errorf("%+v: marked %#x, want %#x", c, got, want)
				}
			}
		})
	}
}

// TestMigrationUnderLoad copies marked pages while two queues work, and the last
// ones when they have stopped: then all that the device wrote has arrived.
func TestMigrationUnderLoad(t *testing.T) {
	m := migrate(t, frontend.Options{Queues: 2, QueueSize: 8})
	seed := make([]byte, capacity)
	rand.NewChaCha8([32]byte{1}).Read(seed)
	_, err := m.Queue(0).WriteAt(seed, 0)
	must(t, err)
	dest := make([]byte, logEnd)
	must(t, m.Memory.Read(dest, 0))
	m.log.Take()
	must(t, m.Session.SetVringEnable(0, true)) // all that was marked until now is copied

	var load sync.WaitGroup
	for _, q := range m.Queues() {
		load.Go(func() {
			random := rand.New(rand.NewPCG(3, uint64(q.Index())))
			for range 300 {
				data := frontend.Segment{Addr: 8<<20 + uint64(q.Index())<<21 + random.Uint64N(1<<20), Len: 512 << random.Uint32N(8)}
				if status := m.transfer(q, frontend.TypeIn, random.Uint64N(capacity/512-128), data); status != 0 {
					t.Errorf("status %d", status)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { load.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
			must(t, m.Stop())
		default:
		}
		for _, page := range m.log.Take() {
			must(t, m.Memory.Read(dest[page:page+dirtylog.PageSize], page))
		}
	}
	arrived := func(what string, addr, n uint64) {
		now := make([]byte, n)
		must(t, m.Memory.Read(now, addr))
		if !bytes.Equal(now, dest[addr:addr+n]) {
			t.Errorf("%s has not arrived", what)
		}
	}
	arrived("data", 8<<20, 4<<20)
	for _, q := range m.Queues() {
		arrived("status", statusAt+uint64(q.Index())<<13, 1)
		arrived("used ring", q.Ring.Used.GuestAddr, uint64(virtqueue.UsedSize(q.Ring.Size())))
	}
}

func TestNothingIsMarkedWhenOff(t *testing.T) {
	m := migrate(t, frontend.Options{})
	q := m.Queue(0)
	read := func() { m.transfer(q, frontend.TypeIn, 0, frontend.Segment{Addr: dataAt, Len: 64 << 10}) }
	data := append(pages(statusAt, 1), pages(dataAt, 64<<10)...)

	m.logRings(false)
	m.settled(q)
	read()
	if got := m.settled(q); !slices.Equal(got, data) {
		t.Errorf("with the used ring not logged %#x is marked, want %#x", got, data)
	}
	m.logRings(true) // which means nothing without the feature
	must(t, m.Session.SetFeatures(m.Features))
	m.log.Take()
	read()
	if got := m.settled(q); len(got) != 0 {
		t.Errorf("with logging off %#x is marked", got)
	}
	must(t, m.Session.SetFeatures(m.Features|logAll))
	read()
	if got := m.settled(q); !slices.Equal(got, append(usedPages(q), data...)) {
		t.Errorf("with logging on again %#x is marked", got)
	}
}

// TestLogIsReplaced while requests are in flight: the answer means that the old log
// is used no more.
func TestLogIsReplaced(t *testing.T) {
	m := migrate(t, frontend.Options{})
	q := m.Queue(0)
	other := newLog(t, 2*logEnd, 0)
	must(t, m.Session.SetLogBase(other.Payload(), other.FD))
	m.log.Take()
	m.transfer(q, frontend.TypeIn, 0, frontend.Segment{Addr: dataAt, Len: 512})
	if got := m.settled(q); len(got) != 0 {
		t.Errorf("the old log has marks: %#x", got)
	}
	want := slices.Concat(usedPages(q), pages(statusAt, 1), pages(dataAt, 512))
	if got := other.Take(); !slices.Equal(got, want) {
		t.Errorf("the new log has %#x, want %#x", got, want)
	}
}

func TestLogDescriptorIsSignalled(t *testing.T) {
	m := migrate(t, frontend.Options{})
	call, err := eventfd.New()
	must(t, err)
	defer call.Close()
	must(t, m.Session.SetLogFD(call.FD()))
	m.transfer(m.Queue(0), frontend.TypeIn, 0, frontend.Segment{Addr: dataAt, Len: 512})
	if !readable(t, call.FD(), patience) {
		t.Error("no signal for marks")
	}
}

// TestWriteOutsideTheLog: what cannot be marked ends the session, and the request
// does not look done. What lies beside the log in its file is not touched.
func TestWriteOutsideTheLog(t *testing.T) {
	m := migrate(t, frontend.Options{})
	small := newLog(t, 16<<20, 4096)
	must(t, unix.Ftruncate(small.FD, 3*4096))
	must(t, m.Session.SetLogBase(small.Payload(), small.FD))
	q := m.Queue(0)
	m.transfer(q, frontend.TypeIn, 0, frontend.Segment{Addr: 8 << 20, Len: 512})
	index := q.Ring.UsedIndex()
	_, err := q.Ring.Add([]frontend.Segment{{Addr: headerAt, Len: 16}, {Addr: 20 << 20, Len: 512}, {Addr: statusAt, Len: 1}}, 1)
	must(t, err)
	q.Ring.Publish()
	must(t, q.Kick.Signal())
	wantEnd(t, m.ended, dirtylog.ErrOutside)
	if q.Ring.Pending() != 0 || q.Ring.UsedIndex() != index {
		t.Error("the request looks done")
	}
	for _, off := range []int64{0, 4096 + 512} {
		b := make([]byte, 3*4096-max(off, 2*4096))
		if _, err := unix.Pread(small.FD, b, off); err != nil || !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("beside the log, at %d: % x, %v", off, b[:16], err)
		}
	}
}

func TestUsedRingOutsideTheLogIsRefused(t *testing.T) {
	m := migrate(t, frontend.Options{})
	q := m.Queue(0)
	for _, addr := range []uint64{logEnd, logEnd - 4, 1<<64 - 4, 1 << 63} {
		bad := loggedAddr(q, true)
		bad.Log = addr
		wantRefused(t, "log address", m.Session.SetVringAddr(bad))
	}
	roundTrip(t, q)
}

func TestRefusedLogs(t *testing.T) {
	for name, l := range map[string]protocol.Log{
		"empty": {}, "beyond its file": {Size: 8192}, "offset beyond its file": {Size: 8, Offset: 4096}, "wraps": {Size: 4096, Offset: 1<<64 - 4096},
	} {
		t.Run(name, func(t *testing.T) {
			dev, _ := newDevice(t)
			s, ended := pair(t, context.Background(), dev)
			must(t, s.SetProtocolFeatures(1<<protocol.ProtocolLogShmFD))
			fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
			must(t, err)
			defer unix.Close(fd)
			must(t, unix.Ftruncate(fd, 4096))
			if err := s.SetLogBase(l, fd); err == nil {
				t.Error("taken")
			}
			select {
			case err := <-ended:
				if err == nil {
					t.Error("no error")
				}
			case <-time.After(patience):
				t.Error("the session goes on")
			}
		})
	}
}

func TestTruncatedLog(t *testing.T) {
	m := migrate(t, frontend.Options{})
	must(t, unix.Ftruncate(m.log.FD, 0))
	q := m.Queue(0)
	must(t, q.Submit(request(t, q, frontend.TypeIn, 0, 512)))
	must(t, q.Kick.Signal())
	wantEnd(t, m.ended, vhost.ErrMemoryFault)
}

// TestLogFeatureWithoutLog: the feature may come first, and means nothing until the
// log is there.
func TestLogFeatureWithoutLog(t *testing.T) {
	dev, _ := newDevice(t)
	d, _ := start(t, dev, frontend.Options{})
	must(t, d.Session.SetFeatures(d.Features|logAll))
	must(t, d.Session.SetVringAddr(loggedAddr(d.Queue(0), true)))
	roundTrip(t, d.Queue(0))
	l := newLog(t, 256<<20, 0)
	must(t, d.Session.SetLogBase(l.Payload(), l.FD))
	l.Take()
	roundTrip(t, d.Queue(0))
	if len(l.Take()) == 0 {
		t.Error("nothing is marked")
	}
}
