package vhost

import (
	"errors"
	"fmt"

	"sealblk/vhost/inflight"
	"sealblk/vhost/protocol"
)

// getInflightFD makes an empty region for the front-end to keep. It is not used before
// the front-end passes it back.
func (s *session) getInflightFD(m *protocol.Message) error {
	var d protocol.Inflight
	err := d.Decode(m.Payload)
	if err == nil {
		err = s.checkInflight(&d)
	}
	if err != nil {
		return err
	}
	if d, s.replyFD, err = inflight.Create(int(d.NumQueues), int(d.QueueSize), s.memo()); err != nil {
		return err
	}
	s.reply = d.Append(s.reply)
	return nil
}

// setInflightFD takes the region over. What is in it counts when the rings start.
func (s *session) setInflightFD(m *protocol.Message) error {
	var d protocol.Inflight
	if err := errors.Join(d.Decode(m.Payload), wantFiles(m, 1)); err != nil {
		return err
	}
	if err := s.checkInflight(&d); err != nil {
		return err
	}
	for i := range s.rings {
		if s.rings[i].started {
			return fmt.Errorf("set in-flight region, ring %d: %w", i, ErrRingStarted)
		}
	}
	region, err := inflight.Open(d, m.Files.Take(0))
	if err != nil {
		return err
	}
	old := s.region
	s.region = region
	served := false
	for i := range s.rings {
		s.rings[i].served = region.Served(i)
		served = served || s.rings[i].served
	}
	s.remember(served)
	return old.Close()
}

func (s *session) memo() uint16 {
	if d, ok := s.dev.(Remembering); ok {
		return d.Memo()
	}
	return 0
}

// remember takes over what is noted in a region that a back-end has served, unless the
// front-end of this session has said something newer.
func (s *session) remember(served bool) {
	d, ok := s.dev.(Remembering)
	if ok && served && !s.configured {
		memo, known := s.region.Memo()
		d.Remember(memo, known)
	}
	s.region.SetMemo(s.memo())
}

// checkInflight refuses regions for other rings than this device has.
func (s *session) checkInflight(d *protocol.Inflight) error {
	if int(d.NumQueues) > len(s.rings) || int(d.QueueSize) > s.dev.MaxQueueSize() {
		return fmt.Errorf("in-flight region for %d queues of %d, at most %d of %d: %w",
			d.NumQueues, d.QueueSize, len(s.rings), s.dev.MaxQueueSize(), ErrRingValue)
	}
	return nil
}
