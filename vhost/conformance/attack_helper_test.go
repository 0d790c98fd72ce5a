package conformance

import (
	"context"
	"errors"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"

	"golang.org/x/sys/unix"
)

// attackPatience is how long a back-end may take over anything.
const attackPatience = 10 * time.Second

// maxOps bounds a program, so that it ends.
const maxOps = 200

// Attack runs a program against a back-end: a front-end that has negotiated like
// any other and then does what the bytes say. Nothing that a back-end answers is
// wrong here; what counts is that [Healthy] holds afterwards.
func Attack(t testing.TB, target Target, program []byte) {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{source: source{program}, target: target, t: t, null: null}
	defer func() {
		a.disconnect()
		_ = unix.Close(null)
	}()
	for range maxOps {
		if len(a.rest) == 0 || !a.connected() {
			return
		}
		a.perform(ops[int(a.byte())%len(ops)])
	}
}

// Healthy checks that a back-end serves a plain session. It returns when the
// session is over for both sides.
func Healthy(t testing.TB, target Target) {
	t.Helper()
	r := &runner{ctx: context.Background(), target: target, options: Options{Patience: attackPatience, CaseTime: 4 * attackPatience}}
	r.options.complete()
	r.end = time.Now().Add(r.options.Budget)
	r.identify()
	if r.lost != "" {
		t.Fatal(r.lost)
	}
	if outcome, detail := r.perform(healthy).verdict(); outcome == Fail {
		t.Fatal(detail)
	}
	Settle(t, target)
}

// Settle returns when the back-end is done with all sessions before: it answers in
// a new one, and it serves one at a time.
func Settle(t testing.TB, target Target) {
	t.Helper()
	s, err := frontend.Dial(t.Context(), target.Socket)
	if err != nil {
		t.Fatal(err)
	}
	s.SetTimeout(attackPatience)
	defer func() { _ = s.Close() }()
	if _, err := s.GetFeatures(); err != nil {
		t.Fatal(err)
	}
}

// source is a program: it gives bytes until there are no more, and then zeros.
type source struct{ rest []byte }

func (s *source) byte() byte {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return b
}

// number is small, or at one of the places where arithmetic goes wrong.
func (s *source) number() uint64 {
	b := s.byte()
	near := uint64(b&15) - 8
	switch b >> 4 {
	case 0, 1, 2, 3:
		return uint64(b)
	case 4:
		return 1<<16 + near
	case 5:
		return 1<<31 + near
	case 6:
		return 1<<32 + near
	case 7:
		return 1<<63 + near
	case 8:
		return math.MaxUint64 - uint64(b&15)
	case 9:
		return attackMemory + near
	case 10:
		return uint64(s.byte()) << 12
	default:
		return uint64(s.byte())<<8 | uint64(s.byte())
	}
}

func (s *source) bytes(limit int) []byte {
	b := make([]byte, int(s.byte())%(limit+1))
	for i := range b {
		b[i] = s.byte()
	}
	return b
}

const (
	attackMemory = 4 * mib
	attackSize   = 16 // of its rings
)

type attacker struct {
	source
	t      testing.TB
	target Target
	null   int // a descriptor of /dev/null
	d      *frontend.Disk
	reader sync.WaitGroup
}

// connected makes a session if there is none.
func (a *attacker) connected() bool {
	if a.d != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), attackPatience)
	defer cancel()
	o := frontend.Options{
		Queues: 2, QueueSize: attackSize, Indirect: 4, Timeout: attackPatience,
		Layout: []frontend.RegionLayout{{Size: attackMemory / 2}, {GuestAddr: attackMemory / 2, Size: attackMemory / 2, File: 1}},
	}
	d, err := frontend.Open(ctx, a.target.Socket, o)
	if err != nil {
		a.t.Fatalf("a plain start failed: %v", err)
	}
	a.d = d
	// Nobody looks at the answers, but they must not pile up.
	a.reader.Go(func() {
		var m protocol.Message
		for d.Session.Conn().ReadMessage(&m) == nil {
			m.Files.CloseAll()
		}
	})
	return true
}

func (a *attacker) disconnect() {
	if a.d == nil {
		return
	}
	_ = a.d.Session.Close() // the back-end may have been first
	a.reader.Wait()
	_ = a.d.Close()
	a.d = nil
}

// send ignores that the back-end may have ended the session by now.
func (a *attacker) send(h protocol.Header, payload []byte, fds ...int) {
	h.Size = uint32(len(payload))
	a.raw(append(h.Append(nil), payload...), fds)
}

func (a *attacker) raw(b []byte, fds []int) {
	if err := a.d.Session.Conn().SetDeadline(time.Now().Add(attackPatience)); err != nil {
		a.t.Fatal(err)
	}
	if err := a.d.Session.Conn().WriteRaw(b, fds...); errors.Is(err, os.ErrDeadlineExceeded) {
		a.t.Fatalf("the back-end does not read: %v", err)
	}
}

func (a *attacker) queue() *frontend.Queue { return a.d.Queue(int(a.byte()) % 2) }

// files picks descriptors of several kinds.
func (a *attacker) files() []int {
	q := a.d.Queue(0)
	kinds := []int{a.memfd(), q.Kick.FD(), q.Call.FD(), q.Err.FD(), a.null}
	fds := make([]int, int(a.byte())%10)
	for i := range fds {
		fds[i] = kinds[int(a.byte())%len(kinds)]
	}
	return fds
}

func (a *attacker) memfd() int { return a.d.Memory.Regions[0].FD }

func (a *attacker) flags() protocol.Flags { return protocol.FlagNeedReply & protocol.Flags(a.byte()) }

// ops are what a byte of a program can mean.
var ops = []func(*attacker){
	(*attacker).anyMessage,
	(*attacker).anyBytes,
	(*attacker).vringState,
	(*attacker).vringAddr,
	(*attacker).vringFile,
	(*attacker).memoryTable,
	(*attacker).memoryRegion,
	(*attacker).config,
	(*attacker).scribble,
	(*attacker).descriptor,
	(*attacker).descriptor,
	(*attacker).available,
	(*attacker).available,
	(*attacker).kick,
	(*attacker).kick,
	(*attacker).request,
	(*attacker).disconnect,
	(*attacker).resize,
	(*attacker).reshapeInflight,
	(*attacker).remap,
	(*attacker).flood,
	(*attacker).unread,
	(*attacker).stopHalfWay,
	(*attacker).halfClose,
	(*attacker).callAndGo,
}

func (a *attacker) anyMessage() {
	r := protocol.Request(a.byte() % 48)
	payload := setters[r]
	if a.byte()%2 == 0 {
		payload = a.bytes(60)
	}
	a.send(header(r, protocol.Flags(a.byte())&^3), payload, a.files()...)
}

func (a *attacker) anyBytes() { a.raw(a.bytes(40), a.files()) }

func (a *attacker) vringState() {
	r := []protocol.Request{protocol.SetVringNum, protocol.SetVringBase, protocol.GetVringBase, protocol.SetVringEnable}[a.byte()%4]
	s := protocol.VringState{Index: uint32(a.byte() % 3), Num: uint32(a.number())}
	a.send(header(r, a.flags()), s.Append(nil))
}

func (a *attacker) vringAddr() {
	v := *a.queue().Ring.Addr(uint32(a.byte() % 3))
	switch a.byte() % 4 {
	case 0:
		v.Descriptor += a.number()
	case 1:
		v.Available += a.number()
	case 2:
		v.Used += a.number()
	}
	a.send(header(protocol.SetVringAddr, a.flags()), v.Append(nil))
}

func (a *attacker) vringFile() {
	r := []protocol.Request{protocol.SetVringKick, protocol.SetVringCall, protocol.SetVringErr, protocol.SetBackendReqFD}[a.byte()%4]
	v := protocol.VringFD{Index: a.byte() % 3, NoFD: a.byte()%4 == 0}
	a.send(header(r, a.flags()), v.Append(nil), a.files()...)
}

func (a *attacker) region() protocol.MemoryRegion {
	r := a.d.Memory.Regions[a.byte()%2].MemoryRegion
	switch a.byte() % 6 {
	case 0:
		r.GuestAddr = a.number()
	case 1:
		r.UserAddr = a.number()
	case 2:
		r.Size = a.number()
	case 3:
		r.MmapOffset = a.number()
	}
	return r
}

func (a *attacker) memoryTable() {
	t := protocol.MemoryTable{N: int(a.byte() % 4)}
	fds := make([]int, t.N)
	for i := range t.N {
		t.Regions[i], fds[i] = a.region(), a.memfd()
	}
	a.send(header(protocol.SetMemTable, a.flags()), t.Append(nil), fds...)
}

func (a *attacker) memoryRegion() {
	s := protocol.SingleRegion{Region: a.region()}
	if a.byte()%2 == 0 {
		a.send(header(protocol.RemMemReg, a.flags()), s.Append(nil))
		return
	}
	a.send(header(protocol.AddMemReg, a.flags()), s.Append(nil), a.memfd())
}

func (a *attacker) config() {
	r := []protocol.Request{protocol.GetConfig, protocol.SetConfig}[a.byte()%2]
	c := protocol.Config{Offset: uint32(a.number()), Data: a.bytes(64)}
	a.send(header(r, a.flags()), c.Append(nil))
}

// scribble writes into one of a ring's areas.
func (a *attacker) scribble() {
	r := a.queue().Ring
	area := [][]byte{r.Desc.Bytes, r.Avail.Bytes, r.Used.Bytes}[a.byte()%3]
	copy(area[int(a.byte())%len(area):], a.bytes(16))
}

// descriptor writes one that is more or less right.
func (a *attacker) descriptor() {
	r := a.queue().Ring
	d := virtqueue.Desc{Addr: uint64(a.byte()) << 10, Len: uint32(a.byte()) << 4, Flags: uint16(a.byte() & 7), Next: uint16(a.byte() % (attackSize + 2))}
	switch a.byte() % 8 {
	case 0:
		d.Addr = a.number()
	case 1:
		d.Len = uint32(a.number())
	case 2: // a table in the descriptor table itself
		d.Addr, d.Flags = r.Desc.GuestAddr, indirect
	}
	r.PutDesc(uint16(a.byte()%attackSize), d)
}

func (a *attacker) available() {
	r := a.queue().Ring
	for range a.byte() % 4 {
		r.AddHead(uint16(a.byte() % (attackSize + 1)))
	}
	if a.byte()%16 == 0 {
		r.SetAvailIndex(uint16(a.number()))
	}
	r.Publish()
}

func (a *attacker) kick() {
	if err := a.queue().Kick.Signal(); err != nil {
		a.t.Fatal(err)
	}
}

// request is a right one, for the others to spoil.
func (a *attacker) request() {
	q := a.queue()
	r, err := q.NewRequest(int(a.byte()) << 4)
	if err != nil {
		return // its memory is used up
	}
	r.Type, r.Sector = uint32(a.byte()%16), a.number()
	if a.byte()%2 == 0 { // in memory that the rings can do without
		far := &a.d.Memory.Regions[1]
		r.Segments = []frontend.Segment{{Addr: far.GuestAddr + uint64(a.byte())<<12, Len: uint32(a.byte()) << 9}}
	}
	if q.Submit(r) == nil {
		_ = q.Notify() // like a kick
	}
}
