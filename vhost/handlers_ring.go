package vhost

import (
	"errors"
	"fmt"

	"sealblk/vhost/protocol"
	"sealblk/vhost/virtqueue"
)

func (s *session) getQueueNum(m *protocol.Message) error {
	return s.replyU64(m, uint64(len(s.rings)))
}

func (s *session) ring(index uint32) (*ring, error) {
	if index >= uint32(len(s.rings)) {
		return nil, fmt.Errorf("ring %d of %d: %w", index, len(s.rings), ErrNoRing)
	}
	return &s.rings[index], nil
}

// ringState decodes the payload of most messages about rings.
func (s *session) ringState(m *protocol.Message) (*ring, uint32, error) {
	var v protocol.VringState
	if err := v.Decode(m.Payload); err != nil {
		return nil, 0, err
	}
	r, err := s.ring(v.Index)
	return r, v.Num, err
}

func (s *session) setVringNum(m *protocol.Message) error {
	r, size, err := s.ringState(m)
	switch {
	case err != nil:
		return err
	case r.started:
		return fmt.Errorf("set size of ring %d: %w", r.index, ErrRingStarted)
	case size > uint32(s.dev.MaxQueueSize()) || !virtqueue.ValidSize(int(size)):
		return fmt.Errorf("set size %d, at most %d: %w", size, s.dev.MaxQueueSize(), ErrRingValue)
	}
	r.size = int(size)
	return s.advance(r)
}

// setVringAddr checks what it can: the parts can be looked up when the size and
// some memory are known, and are again when the worker starts.
func (s *session) setVringAddr(m *protocol.Message) error {
	var a protocol.VringAddr
	if err := a.Decode(m.Payload); err != nil {
		return err
	}
	r, err := s.ring(a.Index)
	if err != nil {
		return err
	}
	if err := errors.Join(checkAddr(&a), s.checkLog(&a, r.size)); err != nil {
		return err
	}
	if r.started {
		return s.changeLogging(r, a)
	}
	next := ring{index: r.index, size: r.size, addr: a}
	if r.size > 0 && s.table.Len() > 0 {
		if _, err := next.parts(s.table); err != nil {
			return err
		}
	}
	r.addr, r.hasAddr = a, true
	return s.advance(r)
}

func checkAddr(a *protocol.VringAddr) error {
	if a.Flags&^protocol.VringAddrLog != 0 {
		return fmt.Errorf("set addresses with flags %#x: %w", a.Flags, ErrRingValue)
	}
	if a.Descriptor%virtqueue.DescAlign != 0 || a.Available%virtqueue.AvailAlign != 0 || a.Used%virtqueue.UsedAlign != 0 {
		return fmt.Errorf("set addresses: %w", virtqueue.ErrAlignment)
	}
	return nil
}

func (s *session) setVringBase(m *protocol.Message) error {
	r, base, err := s.ringState(m)
	switch {
	case err != nil:
		return err
	case r.started:
		return fmt.Errorf("set base of ring %d: %w", r.index, ErrRingStarted)
	case base > 0xffff:
		return fmt.Errorf("set base %d: %w", base, ErrRingValue)
	}
	r.next = uint16(base)
	return nil
}

// getVringBase stops the ring. The kick descriptor is dropped with that: from now
// on its kicks are somebody else's.
func (s *session) getVringBase(m *protocol.Message) error {
	r, _, err := s.ringState(m)
	if err != nil {
		return err
	}
	if err := s.halt(r); err != nil {
		return err
	}
	wasStarted := r.started
	r.started, r.hasKick, r.served = false, false, false
	r.kick.close()
	r.kick = nil
	if wasStarted {
		s.rest()
	}
	s.reply = protocol.VringState{Index: uint32(r.index), Num: uint32(r.next)}.Append(s.reply)
	return nil
}

// rest tells the device that all rings have stopped, if they have.
func (s *session) rest() {
	for i := range s.rings {
		if s.rings[i].started {
			return
		}
	}
	if d, ok := s.dev.(Resting); ok {
		d.Rest()
	}
}

func (s *session) setVringEnable(m *protocol.Message) error {
	r, enable, err := s.ringState(m)
	if err != nil {
		return err
	}
	switch enable {
	case 0:
		r.enabled = false
		return s.halt(r)
	case 1:
		r.enabled = true
		return s.advance(r)
	}
	return fmt.Errorf("enable ring %d with %d: %w", r.index, enable, ErrRingValue)
}

// ringFD decodes a message that brings a descriptor for a ring, or none (nil).
func (s *session) ringFD(m *protocol.Message) (*ring, *notifier, error) {
	var v protocol.VringFD
	if err := v.Decode(m.Payload); err != nil {
		return nil, nil, err
	}
	want := 1
	if v.NoFD {
		want = 0
	}
	if err := wantFiles(m, want); err != nil {
		return nil, nil, err
	}
	r, err := s.ring(uint32(v.Index))
	if err != nil || v.NoFD {
		return r, nil, err
	}
	n, err := newNotifier(m.Files.Take(0))
	return r, n, err
}

func (s *session) setVringKick(m *protocol.Message) error {
	r, n, err := s.ringFD(m)
	if err != nil {
		return err
	}
	r.swap(&r.kick, n, func(w *worker) { w.kick = n })
	r.hasKick = true
	return s.advance(r)
}

// setVringCall signals the new descriptor of a ring that runs: what was published
// a moment ago may have been announced on the old one only.
func (s *session) setVringCall(m *protocol.Message) error {
	r, n, err := s.ringFD(m)
	if err != nil {
		return err
	}
	r.swap(&r.call, n, func(w *worker) { w.call = n; n.signal() })
	return nil
}

func (s *session) setVringErr(m *protocol.Message) error {
	r, n, err := s.ringFD(m)
	if err != nil {
		return err
	}
	r.swap(&r.err, n, func(w *worker) { w.err = n })
	return nil
}
