package conformance

import (
	"os"
	"time"

	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

var notifierCases = []Case{
	{Kind: House, Rule: "kick and call may be pipes", Spec: "vhost-user, SET_VRING_KICK, SET_VRING_CALL", run: pipeNotifiers},
	{Kind: House, Rule: "a call descriptor that is full does not block the back-end", Spec: "vhost-user, SET_VRING_CALL", run: fullCall},
	{Kind: House, Rule: "a kick descriptor that is closed does not end the session", Spec: "vhost-user, SET_VRING_KICK", run: closedKick},
	{Kind: Must, Rule: "a ring without kick descriptor is polled", Spec: "vhost-user, SET_VRING_KICK (bit 8)", run: noKick},
	{Kind: Must, Rule: "a ring without call descriptor is served", Spec: "vhost-user, SET_VRING_CALL (bit 8)", run: noCall},
	{Kind: Must, Rule: "the call descriptor may change while the ring runs", Spec: "vhost-user, SET_VRING_CALL", run: changeCall},
	{Kind: House, Rule: "the back-end channel may be a pipe", Spec: "vhost-user, SET_BACKEND_REQ_FD", run: pipeChannel},
	{Kind: House, Rule: "the back-end channel may be closed by the front-end", Spec: "vhost-user, SET_BACKEND_REQ_FD", run: closedChannel},
}

// pipe is closed when the test ends.
func (x *rig) pipe() (r, w *os.File) {
	r, w, err := os.Pipe()
	x.must(err)
	x.cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
}

// fdOf leaves the file in non-blocking mode, which Fd would end.
func (x *rig) fdOf(f *os.File) (fd int) {
	raw, err := f.SyscallConn()
	x.must(err)
	x.must(raw.Control(func(u uintptr) { fd = int(u) }))
	return fd
}

func pipeNotifiers(x *rig) {
	kickR, kickW := x.pipe()
	callR, callW := x.pipe()
	d := x.connect(frontend.Options{})
	q := d.Queue(0)
	x.share(d)
	x.place(d, q, x.fdOf(kickR), x.fdOf(callW))
	x.must(d.Session.SetVringEnable(0, true))
	for i := range 20 {
		r := x.read(q, i)
		x.must(q.Submit(r))
		q.Ring.RequestCall()
		_, err := kickW.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
		x.must(err)
		var b [8]byte
		x.must(callR.SetReadDeadline(time.Now().Add(x.patience)))
		if n, err := callR.Read(b[:]); err != nil || n != 8 {
			x.fatalf("call: %d bytes, %v", n, err)
		}
		x.drain(q, 1)
	}
}

func fullCall(x *rig) {
	d := x.open(frontend.Options{Polling: true})
	q := d.Queue(0)
	x.await("room in the call descriptor", func() bool { // the start of a ring may signal
		_, _ = q.Call.Clear()
		_, err := unix.Write(q.Call.FD(), []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		return err == nil
	})
	for range 5 {
		x.must(q.Submit(x.read(q, 0)))
		q.Ring.RequestCall()
		x.must(q.Kick.Signal())
		x.drain(q, 1)
	}
}

func closedKick(x *rig) {
	kickR, kickW := x.pipe()
	d := x.connect(frontend.Options{Polling: true})
	q := d.Queue(0)
	x.share(d)
	x.place(d, q, x.fdOf(kickR), q.Call.FD())
	x.must(d.Session.SetVringEnable(0, true))
	_, err := kickW.Write(make([]byte, 8))
	x.must(err)
	x.must(kickW.Close())
	x.alive(d.Session)
	_, err = d.Session.GetVringBase(0)
	x.must(err)
}

func noKick(x *rig) {
	d := x.connect(frontend.Options{})
	q := d.Queue(0)
	x.share(d)
	x.place(d, q, -1, q.Call.FD())
	x.must(d.Session.SetVringEnable(0, true))
	for i := range 5 {
		x.must(q.Submit(x.read(q, i)))
		x.drain(q, 1)
	}
}

func noCall(x *rig) {
	d := x.connect(frontend.Options{Polling: true})
	q := d.Queue(0)
	x.share(d)
	x.place(d, q, q.Kick.FD(), -1)
	x.must(d.Session.SetVringEnable(0, true))
	for i := range 5 {
		x.submit(q, x.read(q, i))
		x.drain(q, 1)
	}
}

// changeCall is what QEMU does whenever a guest masks and unmasks its interrupt. A
// back-end may signal a new descriptor at once; that is not taken for the notification.
func changeCall(x *rig) {
	d := x.open(frontend.Options{Polling: true})
	q := d.Queue(0)
	for i := range 20 {
		fd := []int{q.Call.FD(), q.Err.FD(), -1}[i%3]
		x.must(d.Session.SetVringCall(0, fd))
		x.alive(d.Session) // the back-end has acted upon that
		for _, e := range []interface{ Clear() (bool, error) }{q.Call, q.Err} {
			_, err := e.Clear()
			x.must(err)
		}
		r := x.read(q, 0)
		q.Ring.RequestCall() // before the request: a back-end that polls is done with it at once
		x.must(q.Submit(r))
		x.must(q.Kick.Signal())
		if fd >= 0 && !readable(fd, x.patience) { // before drain, which takes notifications if it waits for long
			x.fatalf("round %d: no notification on the new descriptor", i)
		}
		x.drain(q, 1)
	}
}

func pipeChannel(x *rig) {
	_, w := x.pipe()
	s := x.acked()
	if err := s.Set(protocol.SetBackendReqFD, nil, x.fdOf(w)); err != nil {
		x.wantErr("SET_BACKEND_REQ_FD", err, frontend.ErrRefused)
	}
	if x.target.Grow != nil {
		x.must(x.target.Grow(x.ctx))
	}
	x.alive(s)
}

func closedChannel(x *rig) {
	r, w := x.pipe()
	s := x.acked()
	if err := s.Set(protocol.SetBackendReqFD, nil, x.fdOf(w)); err != nil {
		x.wantErr("SET_BACKEND_REQ_FD", err, frontend.ErrRefused)
	}
	x.must(r.Close())
	if x.target.Grow != nil {
		x.must(x.target.Grow(x.ctx))
	}
	x.alive(s)
}
