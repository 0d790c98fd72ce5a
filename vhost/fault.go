package vhost

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// faultPatience is how long requests may stay in flight after guest memory is gone.
var faultPatience = 5 * time.Second

// guard runs f and returns an error if guest memory vanished under it. Any other
// panic is a bug and goes on.
func (w *worker) guard(f func()) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if fault, ok := p.(interface{ Addr() uintptr }); ok && w.shared(fault.Addr()) {
			err = fmt.Errorf("access memory of ring %d: %w", w.queue.Index, ErrMemoryFault)
			return
		}
		panic(p)
	}()
	f()
	return nil
}

// shared tells whether an address lies in memory that is the front-end's too.
func (w *worker) shared(addr uintptr) bool {
	return w.table.Contains(addr) || w.dirty.log.Contains(addr)
}

// survive comes after a fault. Nothing that the panic cut short can be trusted to
// go on, so no request is taken or answered any more; those that the device still
// has are waited for, because they use memory that the session is about to free.
//
// The memory that is gone is not replaced by other memory, which would let them all
// end in peace: a write still on its way would store zeros that no guest wrote.
func (w *worker) survive(fault error) {
	w.broken = true
	w.onFault(fault)
	w.abandoned = w.guard(w.discard) != nil || w.inFlight > 0
	for !w.stopping {
		w.obey()
		if !w.stopping {
			w.wait(nil)
		}
	}
}

// discard polls the requests in flight, for a while, and forgets them.
func (w *worker) discard() {
	deadline := time.Now().Add(faultPatience)
	for w.inFlight > 0 {
		k := w.dev.Poll(w.done[:])
		w.inFlight -= k
		left := time.Until(deadline)
		if left < 0 {
			return
		}
		if k == 0 {
			w.polls[0] = unix.PollFd{Fd: int32(w.dev.WaitFD()), Events: unix.POLLIN}
			timeout := unix.NsecToTimespec(int64(left))
			if _, err := unix.Ppoll(w.polls[:1], &timeout, nil); err != nil && err != unix.EINTR {
				return
			}
		}
	}
}
