package vhost

import (
	"errors"
	"fmt"

	"sealblk/vhost/memory"
	"sealblk/vhost/protocol"
)

func region(r *protocol.MemoryRegion) memory.Region {
	return memory.Region{GuestAddr: r.GuestAddr, Size: r.Size, UserAddr: r.UserAddr, FileOffset: r.MmapOffset}
}

// setMemTable puts a new memory in the place of the old one. If the new one cannot
// be mapped the old one stays.
func (s *session) setMemTable(m *protocol.Message) error {
	var t protocol.MemoryTable
	if err := t.Decode(m.Payload); err != nil {
		return err
	}
	if err := wantFiles(m, t.N); err != nil {
		return err
	}
	regions, fds := make([]memory.Region, t.N), make([]int, t.N)
	for i := range t.N {
		regions[i], fds[i] = region(&t.Regions[i]), m.Files.Take(i)
	}
	table, err := memory.New(regions, fds)
	if err != nil {
		return err
	}
	old := s.table
	if err := s.haltAll(); err != nil {
		return errors.Join(err, table.Close())
	}
	s.table = table
	return errors.Join(old.Close(), s.resume())
}

func (s *session) getMaxMemSlots(m *protocol.Message) error {
	return s.replyU64(m, memory.MaxRegions)
}

// addMemReg shows the workers the new table between two requests; nothing stops.
func (s *session) addMemReg(m *protocol.Message) error {
	var r protocol.SingleRegion
	if err := errors.Join(r.Decode(m.Payload), wantFiles(m, 1)); err != nil {
		return err
	}
	table, err := s.table.With(region(&r.Region), m.Files.Take(0))
	if err != nil {
		return err
	}
	s.table = table
	for i := range s.rings {
		if w := s.rings[i].worker; w != nil {
			w.do(func() { w.setMemory(table) })
		}
	}
	return s.resume()
}

// remMemReg drains what may use the region before it goes. Some front-ends pass a
// descriptor along, which means nothing.
func (s *session) remMemReg(m *protocol.Message) error {
	var r protocol.SingleRegion
	if err := r.Decode(m.Payload); err != nil {
		return err
	}
	if n := m.Files.Len(); n > 1 {
		return fmt.Errorf("%d file descriptors, not 0 or 1: %w", n, ErrFileCount)
	}
	table, gone, err := s.table.Without(region(&r.Region))
	if err != nil {
		return err
	}
	if err := s.haltAll(); err != nil {
		return err
	}
	s.table = table
	return errors.Join(gone.Close(), s.resume())
}
