package vhost

import (
	"errors"
	"fmt"

	"sealblk/vhost/protocol"
)

// offeredProtocol are the protocol features of every session.
const offeredProtocol = 1<<protocol.ProtocolMQ | 1<<protocol.ProtocolConfig | 1<<protocol.ProtocolReplyAck |
	1<<protocol.ProtocolConfigureMemSlots | 1<<protocol.ProtocolBackendReq |
	1<<protocol.ProtocolLogShmFD | 1<<protocol.ProtocolInflightShmFD

func (s *session) offered() uint64 {
	return s.dev.Features() | 1<<protocol.FeatureProtocolFeatures | 1<<protocol.FeatureLogAll
}

func (s *session) replyU64(m *protocol.Message, v uint64) error {
	if err := protocol.DecodeEmpty(m.Payload); err != nil {
		return err
	}
	s.reply = protocol.AppendU64(s.reply, v)
	return nil
}

func (s *session) getFeatures(m *protocol.Message) error { return s.replyU64(m, s.offered()) }

// setFeatures takes effect on the rings that run: they are drained and go on.
func (s *session) setFeatures(m *protocol.Message) error {
	features, err := protocol.DecodeU64(m.Payload)
	if err != nil {
		return err
	}
	if unknown := features &^ s.offered(); unknown != 0 {
		return fmt.Errorf("accept features %#x: %w", unknown, ErrFeatures)
	}
	if features != s.features {
		if err := s.haltAll(); err != nil {
			return err
		}
		s.features = features
		s.negotiated()
	}
	if features&(1<<protocol.FeatureProtocolFeatures) == 0 {
		for i := range s.rings {
			s.rings[i].enabled = true
		}
	}
	return s.resume()
}

func (s *session) negotiated() {
	if d, ok := s.dev.(Negotiating); ok {
		d.Negotiated(s.features)
		s.region.SetMemo(s.memo())
	}
}

func (s *session) getProtocolFeatures(m *protocol.Message) error {
	return s.replyU64(m, offeredProtocol)
}

func (s *session) setProtocolFeatures(m *protocol.Message) error {
	features, err := protocol.DecodeU64(m.Payload)
	if err != nil {
		return err
	}
	if unknown := features &^ offeredProtocol; unknown != 0 {
		return fmt.Errorf("accept protocol features %#x: %w", unknown, ErrFeatures)
	}
	s.protocolFeatures = features
	return nil
}

// setOwner has nothing to do: whoever is connected owns the session.
func (s *session) setOwner(m *protocol.Message) error { return protocol.DecodeEmpty(m.Payload) }

// resetOwner, long deprecated, may be ignored or disable all rings.
func (s *session) resetOwner(m *protocol.Message) error {
	if err := protocol.DecodeEmpty(m.Payload); err != nil {
		return err
	}
	for i := range s.rings {
		s.rings[i].enabled = false
	}
	return s.haltAll()
}

// getConfig answers with exactly the bytes that were asked for. An access that no
// configuration space has room for gets the answer that means an error: none.
func (s *session) getConfig(m *protocol.Message) error {
	var c protocol.Config
	if err := c.Decode(m.Payload); err != nil {
		if errors.Is(err, protocol.ErrPayloadValue) {
			s.log.Warn("request refused", "request", protocol.GetConfig.String(), "err", err)
			return nil
		}
		return err
	}
	s.dev.ReadConfig(c.Data, int(c.Offset))
	s.reply = c.Append(s.reply)
	return nil
}

// setConfig takes effect on the rings that run: they are drained and go on.
func (s *session) setConfig(m *protocol.Message) error {
	var c protocol.Config
	if err := c.Decode(m.Payload); err != nil {
		return err
	}
	if err := s.haltAll(); err != nil {
		return err
	}
	err := s.dev.WriteConfig(c.Data, int(c.Offset))
	if err == nil {
		s.configured = true
		s.region.SetMemo(s.memo())
	}
	return errors.Join(err, s.resume())
}

// setBackendReqFD keeps the back-end channel until another one comes or the
// session ends.
func (s *session) setBackendReqFD(m *protocol.Message) error {
	if err := errors.Join(protocol.DecodeEmpty(m.Payload), wantFiles(m, 1)); err != nil {
		return err
	}
	channel, err := newNotifier(m.Files.Take(0))
	if err != nil {
		return err
	}
	s.backend.close()
	s.backend = channel
	return nil
}
