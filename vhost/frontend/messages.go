package frontend

import (
	"fmt"

	"sealblk/vhost/protocol"
)

// GetFeatures asks for the virtio and vhost features on offer, as a mask.
func (s *Session) GetFeatures() (uint64, error) { return s.getU64(protocol.GetFeatures) }

// SetFeatures acknowledges features.
func (s *Session) SetFeatures(mask uint64) error { return s.setU64(protocol.SetFeatures, mask) }

// GetProtocolFeatures asks for the protocol features on offer, as a mask.
func (s *Session) GetProtocolFeatures() (uint64, error) {
	return s.getU64(protocol.GetProtocolFeatures)
}

// SetProtocolFeatures acknowledges protocol features. With REPLY_ACK among them,
// every later Set waits for its answer.
func (s *Session) SetProtocolFeatures(mask uint64) error {
	if err := s.setU64(protocol.SetProtocolFeatures, mask); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replyAck = mask&(1<<protocol.ProtocolReplyAck) != 0
	return nil
}

// SetOwner claims the session.
func (s *Session) SetOwner() error { return s.Set(protocol.SetOwner, nil) }

// ResetOwner is the deprecated reset.
func (s *Session) ResetOwner() error { return s.Set(protocol.ResetOwner, nil) }

// ResetDevice brings the device back to its first state.
func (s *Session) ResetDevice() error { return s.Set(protocol.ResetDevice, nil) }

// GetQueueNum asks for the largest number of queues.
func (s *Session) GetQueueNum() (uint64, error) { return s.getU64(protocol.GetQueueNum) }

// GetMaxMemSlots asks for the largest number of memory regions.
func (s *Session) GetMaxMemSlots() (uint64, error) { return s.getU64(protocol.GetMaxMemSlots) }

// SetMemTable replaces guest memory. The descriptors are those of the regions, in
// order, and stay the caller's.
func (s *Session) SetMemTable(t *protocol.MemoryTable, fds ...int) error {
	return s.Set(protocol.SetMemTable, t.Append(nil), fds...)
}

// AddMemReg adds a region.
func (s *Session) AddMemReg(r protocol.MemoryRegion, fd int) error {
	return s.Set(protocol.AddMemReg, (&protocol.SingleRegion{Region: r}).Append(nil), fd)
}

// RemMemReg takes a region away.
func (s *Session) RemMemReg(r protocol.MemoryRegion) error {
	return s.Set(protocol.RemMemReg, (&protocol.SingleRegion{Region: r}).Append(nil))
}

// SetVringNum sets the size of a ring.
func (s *Session) SetVringNum(index, size uint32) error {
	return s.setState(protocol.SetVringNum, index, size)
}

// SetVringAddr sets the places of a ring, as user addresses.
func (s *Session) SetVringAddr(a *protocol.VringAddr) error {
	return s.Set(protocol.SetVringAddr, a.Append(nil))
}

// SetVringBase sets the avail index at which the back-end goes on.
func (s *Session) SetVringBase(index, base uint32) error {
	return s.setState(protocol.SetVringBase, index, base)
}

// GetVringBase stops a ring and asks for the avail index at which it stands.
func (s *Session) GetVringBase(index uint32) (base uint32, err error) {
	want := protocol.VringState{Index: index}
	err = s.Get(protocol.GetVringBase, want.Append(nil), func(m *protocol.Message) error {
		var got protocol.VringState
		if err := got.Decode(m.Payload); err != nil {
			return err
		}
		if got.Index != index {
			return fmt.Errorf("base of ring %d, not %d", got.Index, index)
		}
		base = got.Num
		return nil
	})
	return base, err
}

// SetVringKick passes the descriptor by which the driver notifies; -1 is none.
func (s *Session) SetVringKick(index uint8, fd int) error {
	return s.setVringFD(protocol.SetVringKick, index, fd)
}

// SetVringCall passes the descriptor by which the device notifies; -1 is none.
func (s *Session) SetVringCall(index uint8, fd int) error {
	return s.setVringFD(protocol.SetVringCall, index, fd)
}

// SetVringErr passes the descriptor by which the device reports a broken ring; -1
// is none.
func (s *Session) SetVringErr(index uint8, fd int) error {
	return s.setVringFD(protocol.SetVringErr, index, fd)
}

// SetVringEnable enables or disables a ring.
func (s *Session) SetVringEnable(index uint32, enable bool) error {
	var num uint32
	if enable {
		num = 1
	}
	return s.setState(protocol.SetVringEnable, index, num)
}

// GetConfig fills b with the configuration space from offset on.
func (s *Session) GetConfig(offset uint32, b []byte) error {
	c := protocol.Config{Offset: offset, Data: b}
	return s.Get(protocol.GetConfig, c.Append(nil), func(m *protocol.Message) error {
		var got protocol.Config
		if err := got.Decode(m.Payload); err != nil {
			return err
		}
		if got.Offset != offset || len(got.Data) != len(b) {
			return fmt.Errorf("%d bytes at %d, not %d at %d", len(got.Data), got.Offset, len(b), offset)
		}
		copy(b, got.Data)
		return nil
	})
}

// SetConfig writes to the configuration space. Flags are protocol.ConfigWritable
// or ConfigMigration.
func (s *Session) SetConfig(offset, flags uint32, b []byte) error {
	c := protocol.Config{Offset: offset, Flags: flags, Data: b}
	return s.Set(protocol.SetConfig, c.Append(nil))
}

// SetLogBase passes the dirty bitmap. Its reply carries no value that matters.
func (s *Session) SetLogBase(l protocol.Log, fd int) error {
	return s.Get(protocol.SetLogBase, l.Append(nil), func(*protocol.Message) error { return nil }, fd)
}

// SetLogFD passes the descriptor by which the back-end reports that it logged.
func (s *Session) SetLogFD(fd int) error { return s.Set(protocol.SetLogFD, nil, fd) }

// GetInflightFD asks the back-end for an in-flight region. The descriptor is the
// caller's.
func (s *Session) GetInflightFD(queues, size uint16) (got protocol.Inflight, fd int, err error) {
	want := protocol.Inflight{NumQueues: queues, QueueSize: size}
	err = s.Get(protocol.GetInflightFD, want.Append(nil), func(m *protocol.Message) error {
		if err := got.Decode(m.Payload); err != nil {
			return err
		}
		if m.Files.Len() != 1 {
			return fmt.Errorf("%d descriptors, not 1", m.Files.Len())
		}
		fd = m.Files.Take(0)
		return nil
	})
	if err != nil {
		return protocol.Inflight{}, -1, err
	}
	return got, fd, nil
}

// SetInflightFD hands an in-flight region over.
func (s *Session) SetInflightFD(i protocol.Inflight, fd int) error {
	return s.Set(protocol.SetInflightFD, i.Append(nil), fd)
}

func (s *Session) getU64(r protocol.Request) (v uint64, err error) {
	err = s.Get(r, nil, func(m *protocol.Message) (err error) {
		v, err = protocol.DecodeU64(m.Payload)
		return err
	})
	return v, err
}

func (s *Session) setU64(r protocol.Request, v uint64) error {
	return s.Set(r, protocol.AppendU64(nil, v))
}

func (s *Session) setState(r protocol.Request, index, num uint32) error {
	return s.Set(r, protocol.VringState{Index: index, Num: num}.Append(nil))
}

func (s *Session) setVringFD(r protocol.Request, index uint8, fd int) error {
	v := protocol.VringFD{Index: index, NoFD: fd < 0}
	if v.NoFD {
		return s.Set(r, v.Append(nil))
	}
	return s.Set(r, v.Append(nil), fd)
}
