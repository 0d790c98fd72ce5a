package vhost

import (
	"fmt"

	"sealblk/vhost/dirtylog"
	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

// dirty says what a worker marks in the dirty log, and where. Without a log there is
// nothing to mark: a front-end that asks for marks before it passes one looks for
// none.
type dirty struct {
	log  *dirtylog.Log
	call *notifier // told of marks, or nil
	data bool      // what requests let the device write (VHOST_F_LOG_ALL)
	used bool      // the used ring (VHOST_VRING_F_LOG)
	addr uint64    // of the used ring, in the log
	size uint64    // of the used ring
}

// dirty is what the worker of a ring is to mark now.
func (s *session) dirty(r *ring) dirty {
	logging := s.features&(1<<protocol.FeatureLogAll) != 0
	return dirty{
		log: s.dirtyLog, call: s.dirtyCall, data: logging,
		used: logging && r.addr.Flags&protocol.VringAddrLog != 0,
		addr: r.addr.Log, size: uint64(virtqueue.UsedSize(r.size)),
	}
}

// showDirty tells the workers what to mark from now on. None uses the old log after
// that.
func (s *session) showDirty(rings ...*ring) {
	for _, r := range rings {
		if w := r.worker; w != nil {
			d := s.dirty(r)
			w.do(func() { w.dirty = d })
		}
	}
}

func (s *session) allRings() []*ring {
	all := make([]*ring, len(s.rings))
	for i := range s.rings {
		all[i] = &s.rings[i]
	}
	return all
}

// setLogBase replaces the log. A front-end may do so while rings run, to cover more
// memory.
func (s *session) setLogBase(m *protocol.Message) error {
	var l protocol.Log
	if err := l.Decode(m.Payload); err != nil {
		return err
	}
	if err := wantFiles(m, 1); err != nil {
		return err
	}
	if s.protocolFeatures&(1<<protocol.ProtocolLogShmFD) == 0 {
		return fmt.Errorf("use a dirty log: %w", ErrFeatures)
	}
	log, err := dirtylog.Open(m.Files.Take(0), l.Size, l.Offset)
	if err != nil {
		return err
	}
	old := s.dirtyLog
	s.dirtyLog = log
	s.showDirty(s.allRings()...)
	s.reply = protocol.AppendU64(s.reply, 0)
	return old.Close()
}

// setLogFD takes the descriptor that is signalled when marks were made.
func (s *session) setLogFD(m *protocol.Message) error {
	if err := protocol.DecodeEmpty(m.Payload); err != nil {
		return err
	}
	if err := wantFiles(m, 1); err != nil {
		return err
	}
	n, err := newNotifier(m.Files.Take(0))
	if err != nil {
		return err
	}
	old := s.dirtyCall
	s.dirtyCall = n
	s.showDirty(s.allRings()...)
	old.close()
	return nil
}

// changeLogging is for a ring that runs: of its addresses, only how writes to the
// used ring are logged may change.
func (s *session) changeLogging(r *ring, a protocol.VringAddr) error {
	same := a
	same.Flags, same.Log = r.addr.Flags, r.addr.Log
	if same != r.addr {
		return fmt.Errorf("set addresses of ring %d: %w", r.index, ErrRingStarted)
	}
	r.addr = a
	s.showDirty(r)
	return nil
}

// checkLog sees that the used ring is within the log, as far as that is known.
func (s *session) checkLog(a *protocol.VringAddr, size int) error {
	if a.Flags&protocol.VringAddrLog == 0 || s.dirtyLog == nil || size == 0 {
		return nil
	}
	if !s.dirtyLog.Covers(a.Log, uint64(virtqueue.UsedSize(size))) {
		return fmt.Errorf("log used ring at %#x: %w", a.Log, dirtylog.ErrOutside)
	}
	return nil
}

// markData marks all that a request let the device write, more than it may have
// written. It reports false if that is not possible: a front-end that migrates must
// not see the request as done.
func (w *worker) markData(r *Request) bool {
	if !w.dirty.data || w.dirty.log == nil {
		return true
	}
	for _, p := range r.Writes {
		if !w.mark(p.Addr, p.Len) {
			return false
		}
	}
	return true
}

// markUsed comes after each change of the used ring. It marks all pages of it: they
// are few.
func (w *worker) markUsed() {
	if !w.dirty.used || w.dirty.log == nil {
		return
	}
	if w.mark(w.dirty.addr, w.dirty.size) {
		w.dirty.call.signal()
	}
}

func (w *worker) mark(addr, n uint64) bool {
	err := w.dirty.log.Mark(addr, n)
	if err != nil {
		w.broken = true
		w.onFault(fmt.Errorf("log write of ring %d at %#x: %w", w.queue.Index, addr, err))
	}
	return err == nil
}
