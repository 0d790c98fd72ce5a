package protocol

import (
	"encoding/binary"
	"fmt"
)

const (
	// MaxTableRegions is the largest number of regions in a memory table. A
	// front-end with more of them adds them one by one (CONFIGURE_MEM_SLOTS).
	MaxTableRegions = 8
	// RegionSize is the size of a MemoryRegion on the wire, in bytes.
	RegionSize = 32

	tableHeaderSize = 8
	// MemoryTableSize is the largest size of a MemoryTable on the wire, in bytes.
	MemoryTableSize = tableHeaderSize + MaxTableRegions*RegionSize
	// SingleRegionSize is the size of a SingleRegion on the wire, in bytes.
	SingleRegionSize = 8 + RegionSize
)

// MemoryRegion is a piece of guest memory. Descriptors name it by GuestAddr, the
// addresses of rings by UserAddr. All fields are bytes.
type MemoryRegion struct {
	GuestAddr  uint64
	Size       uint64
	UserAddr   uint64
	MmapOffset uint64
}

// Append puts the wire form behind b.
func (r *MemoryRegion) Append(b []byte) []byte {
	return appendU64s(b, r.GuestAddr, r.Size, r.UserAddr, r.MmapOffset)
}

func (r *MemoryRegion) decode(b []byte) {
	decodeU64s(b, &r.GuestAddr, &r.Size, &r.UserAddr, &r.MmapOffset)
}

// SingleRegion is the payload of ADD_MEM_REG and REM_MEM_REG.
type SingleRegion struct {
	Region MemoryRegion
}

// Append puts the wire form behind b.
func (s *SingleRegion) Append(b []byte) []byte { return s.Region.Append(appendU64s(b, 0)) }

// Decode reads the wire form.
func (s *SingleRegion) Decode(b []byte) error {
	if err := checkSize("memory region", b, SingleRegionSize); err != nil {
		return err
	}
	s.Region.decode(b[8:])
	return nil
}

// MemoryTable is the payload of SET_MEM_TABLE: N regions, each with its descriptor
// beside the message, in the same order.
type MemoryTable struct {
	N       int
	Regions [MaxTableRegions]MemoryRegion
}

// Append puts the wire form behind b.
func (t *MemoryTable) Append(b []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(t.N))
	b = binary.NativeEndian.AppendUint32(b, 0)
	for i := range t.Regions[:t.N] {
		b = t.Regions[i].Append(b)
	}
	return b
}

// Decode reads the wire form. A table without regions is well-formed.
func (t *MemoryTable) Decode(b []byte) error {
	if len(b) < tableHeaderSize {
		return fmt.Errorf("decode memory table of %d bytes: %w", len(b), ErrPayloadSize)
	}
	n := binary.NativeEndian.Uint32(b)
	if n > MaxTableRegions {
		return fmt.Errorf("decode memory table of %d regions: %w", n, ErrPayloadValue)
	}
	if err := checkSize("memory table", b, tableHeaderSize+int(n)*RegionSize); err != nil {
		return err
	}
	*t = MemoryTable{N: int(n)}
	for i := range t.Regions[:n] {
		t.Regions[i].decode(b[tableHeaderSize+i*RegionSize:])
	}
	return nil
}
