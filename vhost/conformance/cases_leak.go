package conformance

import (
	"time"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

// leakCases find descriptors and memory that a back-end keeps. Of a socket pair
// whose one end was passed, the other tells when the last copy is closed. A memfd
// can be sealed against writes when nobody maps it any more.
var leakCases = []Case{
	{Kind: House, Rule: "ring descriptors are closed with the session", Spec: "vhost-user, Ancillary data", run: ringFilesClosed},
	{Kind: House, Rule: "a ring descriptor is closed when another takes its place", Spec: "vhost-user, SET_VRING_CALL", run: replacedFilesClosed},
	{Kind: House, Rule: "descriptors of a refused message are closed", Spec: "vhost-user, Ancillary data", run: refusedFilesClosed},
	{Kind: House, Rule: "the back-end channel is closed with the session", Spec: "vhost-user, SET_BACKEND_REQ_FD", run: channelClosed},
	{Kind: House, Rule: "memory is unmapped with the session", Spec: "vhost-user, SET_MEM_TABLE", run: memoryUnmapped},
	{Kind: House, Rule: "memory is unmapped when it is removed", Spec: "vhost-user, REM_MEM_REG", run: slotUnmapped},
	{Kind: House, Rule: "memory is unmapped when a table takes its place", Spec: "vhost-user, SET_MEM_TABLE", run: tableUnmapped},
}

// tracer is a socket pair: pass is for the back-end.
type tracer struct{ keep, pass int }

func (x *rig) tracer() *tracer {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	x.must(err)
	t := &tracer{keep: fds[0], pass: fds[1]}
	x.cleanup(func() {
		_ = unix.Close(t.keep)
		t.release()
	})
	return t
}

// release closes our own copy of what was passed.
func (t *tracer) release() {
	if t.pass >= 0 {
		_ = unix.Close(t.pass)
		t.pass = -1
	}
}

// wantClosed checks that the back-end closes its copy.
func (x *rig) wantClosed(what string, t *tracer) {
	t.release()
	x.eventually(what+" is still open", func() bool {
		polls := []unix.PollFd{{Fd: int32(t.keep)}}
		n, err := unix.Poll(polls, 1)
		return err == nil && n == 1 && polls[0].Revents&unix.POLLHUP != 0
	})
}

// eventually gives the back-end time for what it does behind our back.
func (x *rig) eventually(otherwise string, holds func() bool) {
	for end := time.Now().Add(x.patience); !holds(); {
		if time.Now().After(end) || x.ctx.Err() != nil {
			x.errorf("%s", otherwise)
			return
		}
		time.Sleep(time.Millisecond) // there is nothing to wait on
	}
}

func ringFilesClosed(x *rig) {
	kick, call, fault := x.tracer(), x.tracer(), x.tracer()
	s := x.acked()
	x.must(s.SetVringKick(0, kick.pass))
	x.must(s.SetVringCall(0, call.pass))
	x.must(s.SetVringErr(0, fault.pass))
	x.alive(s)
	x.must(s.Close())
	x.wantClosed("the kick descriptor", kick)
	x.wantClosed("the call descriptor", call)
	x.wantClosed("the error descriptor", fault)
}

func replacedFilesClosed(x *rig) {
	call, fault := x.tracer(), x.tracer()
	s := x.acked()
	x.must(s.SetVringCall(0, call.pass))
	x.must(s.SetVringErr(0, fault.pass))
	x.must(s.SetVringCall(0, -1))
	x.must(s.SetVringErr(0, -1))
	x.alive(s)
	x.wantClosed("the call descriptor", call)
	x.wantClosed("the error descriptor", fault)
}

func refusedFilesClosed(x *rig) {
	for _, m := range []struct {
		r       protocol.Request
		payload []byte
	}{
		{protocol.SetOwner, nil},
		{protocol.SetVringKick, protocol.VringFD{Index: 255}.Append(nil)},
		{protocol.AddMemReg, (&protocol.SingleRegion{}).Append(nil)},
		{protocol.SendRARP, make([]byte, 8)},
	} {
		t := x.tracer()
		s := x.acked()
		_ = s.Set(m.r, m.payload, t.pass) // refused, or the session ends
		_ = s.Close()
		x.wantClosed("the descriptor of "+m.r.String(), t)
	}
}

func channelClosed(x *rig) {
	x.needsProtocol(protocol.ProtocolBackendReq, "BACKEND_REQ")
	t := x.tracer()
	s := x.acked()
	x.must(s.Set(protocol.SetBackendReqFD, nil, t.pass))
	x.alive(s)
	x.must(s.Close())
	x.wantClosed("the back-end channel", t)
}

// sealable is a file of guest memory that only the back-end maps from now on.
func (x *rig) wantUnmapped(what string, fd int) {
	x.eventually(what+" is still mapped", func() bool {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
		return err == nil
	})
}

// memfd is a file for guest memory that this process does not map.
func (x *rig) memfd(size int64) int {
	fd, err := unix.MemfdCreate("sealblk-conformance", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	x.must(err)
	x.cleanup(func() { _ = unix.Close(fd) })
	x.must(unix.Ftruncate(fd, size))
	return fd
}

// elsewhere is a region that no other overlaps.
var elsewhere = protocol.MemoryRegion{GuestAddr: 1 << 40, Size: mib, UserAddr: 1 << 46}

func memoryUnmapped(x *rig) {
	fd := x.memfd(mib)
	s := x.acked()
	x.must(s.SetMemTable(oneRegion(elsewhere), fd))
	x.must(s.Close())
	x.wantUnmapped("the region", fd)
}

func oneRegion(r protocol.MemoryRegion) *protocol.MemoryTable {
	t := &protocol.MemoryTable{N: 1}
	t.Regions[0] = r
	return t
}

func slotUnmapped(x *rig) {
	d := x.open(frontend.Options{MemorySlots: true})
	fd := x.memfd(mib)
	x.must(d.Session.AddMemReg(elsewhere, fd))
	x.verify(d.Queue(0), 0, random(1, 4096))
	x.must(d.Session.RemMemReg(elsewhere))
	x.wantUnmapped("the region", fd)
	x.verify(d.Queue(0), 0, random(2, 4096))
}

func tableUnmapped(x *rig) {
	a, b := x.memfd(mib), x.memfd(mib)
	s := x.acked()
	x.must(s.SetMemTable(oneRegion(elsewhere), a))
	x.must(s.SetMemTable(oneRegion(elsewhere), b))
	x.alive(s)
	x.wantUnmapped("the first table", a)
}
