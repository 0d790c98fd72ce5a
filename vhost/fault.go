package vhost

import "fmt"

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
// go on, so no request is taken or answered any more. The device gives up those that
// it has, and waits until nothing uses their memory, which the session is about to
// free.
//
// The memory that is gone is not replaced by other memory, which would let them all
// end in peace: a write still on its way would store zeros that no guest wrote.
func (w *worker) survive(fault error) {
	w.broken = true
	w.onFault(fault)
	w.close()
	for !w.stopping {
		(<-w.calls)()
	}
}
