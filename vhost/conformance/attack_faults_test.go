package conformance

import (
	"runtime/debug"
	"time"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

// perform runs an operation. One that touches memory which an earlier one has taken
// away ends there.
func (a *attacker) perform(op func(*attacker)) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch p := recover().(type) {
		case nil, interface{ Addr() uintptr }:
		default:
			panic(p)
		}
	}()
	op(a)
}

const pageBytes = 4096

// resize cuts a file of guest memory, makes it longer again, or punches a hole.
func (a *attacker) resize() {
	r := a.d.Memory.Regions[a.byte()%2]
	a.reshape(r.FD, int64(r.Size))
}

// reshapeInflight does the same to the in-flight region, or writes to it, and may hand
// it over again.
func (a *attacker) reshapeInflight() {
	desc, fd := a.d.InflightFD()
	if fd < 0 {
		return
	}
	if a.byte()%2 == 0 {
		a.reshape(fd, int64(desc.MmapSize))
	} else {
		_, _ = unix.Pwrite(fd, a.bytes(32), int64(a.byte())*4)
	}
	if a.byte()%2 == 0 {
		if a.byte()%4 == 0 {
			desc.MmapSize = a.number()
		}
		a.send(header(protocol.SetInflightFD, a.flags()), desc.Append(nil), fd)
	}
}

// reshape ignores what a seal forbids.
func (a *attacker) reshape(fd int, size int64) {
	at := []int64{0, pageBytes, size / 2, int64(a.byte()) * pageBytes}[a.byte()%4]
	switch a.byte() % 4 {
	case 0:
		_ = unix.Ftruncate(fd, at)
	case 1:
		_ = unix.Ftruncate(fd, size+at)
	case 2:
		_ = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, int64(a.byte())*pageBytes+1)
	default:
		_ = unix.Ftruncate(fd, size)
	}
}

// remap passes the memory as it is once more, in a table or slot by slot, whatever is
// in flight.
func (a *attacker) remap() {
	table, fds, err := a.d.Memory.Table()
	if err != nil {
		a.t.Fatal(err)
	}
	if a.byte()%2 == 0 {
		a.send(header(protocol.SetMemTable, a.flags()), table.Append(nil), fds...)
		return
	}
	i := a.byte() % 2
	slot := (&protocol.SingleRegion{Region: table.Regions[i]}).Append(nil)
	a.send(header(protocol.RemMemReg, a.flags()), slot)
	if a.byte()%4 != 0 {
		a.send(header(protocol.AddMemReg, a.flags()), slot, fds[i])
	}
}

// mostFiles is SCM_MAX_FD of Linux.
const mostFiles = 253

// flood sends messages with as many descriptors as a message can carry.
func (a *attacker) flood() {
	fds := make([]int, mostFiles)
	for i := range fds {
		fds[i] = a.null
	}
	r := protocol.Request(a.byte() % 48)
	for range 1 + a.byte()%4 {
		a.send(header(r, a.flags()), setters[r], fds[:mostFiles-int(a.byte()%2)*int(a.byte()%mostFiles)]...)
	}
}

// unread asks for much and reads nothing, with descriptors that nobody wants.
func (a *attacker) unread() {
	a.disconnect()
	s := a.dial()
	defer func() { _ = s.Close() }()
	for range a.byte() % 32 {
		r := []protocol.Request{protocol.GetFeatures, protocol.GetQueueNum, protocol.GetInflightFD}[a.byte()%3]
		fds := []int{a.null, a.null, a.null}[:a.byte()%8/6]
		if s.SendRaw(header(r, 0), setters[r], fds...) != nil {
			return
		}
	}
}

func (a *attacker) dial() *frontend.Session {
	s, err := frontend.Dial(a.t.Context(), a.target.Socket)
	if err != nil {
		a.t.Fatal(err)
	}
	s.SetTimeout(attackPatience)
	return s
}

// stopHalfWay ends the session in the midst of a message: within the header, behind it,
// or within the payload.
func (a *attacker) stopHalfWay() {
	r := protocol.Request(a.byte() % 48)
	payload := setters[r]
	h := header(r, a.flags())
	h.Size = uint32(len(payload))
	b := append(h.Append(nil), payload...)
	a.raw(b[:int(a.byte())%len(b)], a.files())
	a.disconnect()
}

// halfClose ends one direction of the connection, and then the other one.
func (a *attacker) halfClose() {
	how := []int{unix.SHUT_WR, unix.SHUT_RD}[a.byte()%2]
	raw, err := a.d.Session.Conn().SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), how) })
	if how == unix.SHUT_RD {
		a.send(header(protocol.GetFeatures, 0), nil)
	}
	a.disconnect()
}

// callAndGo makes connections, one after the other or many at once, that say little or
// nothing.
func (a *attacker) callAndGo() {
	a.disconnect()
	n := 1 + int(a.byte()%12)
	open := make([]*frontend.Session, 0, n)
	for range n {
		s := a.dial()
		_ = s.Conn().SetDeadline(time.Now().Add(attackPatience))
		_ = s.Conn().WriteRaw(a.bytes(14), a.null)
		if a.byte()%2 == 0 {
			_ = s.Close()
			continue
		}
		open = append(open, s)
	}
	for _, s := range open {
		_ = s.Close()
	}
}
