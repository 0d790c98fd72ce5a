package frontend

import (
	"encoding/binary"
	"fmt"
)

// Features of a block device (VIRTIO 1.3 clause 5.2.3), as bit numbers.
const (
	FeatureSizeMax     = 1
	FeatureSegMax      = 2
	FeatureGeometry    = 4
	FeatureReadOnly    = 5
	FeatureBlkSize     = 6
	FeatureFlush       = 9
	FeatureTopology    = 10
	FeatureConfigWCE   = 11
	FeatureMQ          = 12
	FeatureDiscard     = 13
	FeatureWriteZeroes = 14
)

// Types of requests (clause 5.2.6).
const (
	TypeIn          uint32 = 0
	TypeOut         uint32 = 1
	TypeFlush       uint32 = 4
	TypeGetID       uint32 = 8
	TypeDiscard     uint32 = 11
	TypeWriteZeroes uint32 = 13
)

// Status of a request (clause 5.2.6).
const (
	StatusOK     byte = 0
	StatusIOErr  byte = 1
	StatusUnsupp byte = 2

	// statusUnset stands in the status byte until the device writes it.
	statusUnset byte = 0xff
)

const (
	// SectorSize is the unit of capacities and request offsets, in bytes.
	SectorSize = 512
	// IDSize is the length of the answer to TypeGetID, in bytes.
	IDSize = 20

	// RangeSize is the length of a Range in a request, in bytes.
	RangeSize = 16
	// FlagUnmap allows a TypeWriteZeroes to deallocate.
	FlagUnmap uint32 = 1

	headerSize = 16
	statusSize = 1
)

// ConfigSize is the part of the configuration space that Config knows, in bytes.
const ConfigSize = 60

// Config is the configuration space of a block device (clause 5.2.4). A field that
// depends on a feature means nothing without it.
type Config struct {
	// Capacity in sectors of 512 bytes.
	Capacity uint64
	SizeMax  uint32
	SegMax   uint32
	// BlkSize in bytes.
	BlkSize             uint32
	PhysicalBlockExp    uint8
	AlignmentOffset     uint8
	MinIOSize           uint16 // in blocks
	OptIOSize           uint32 // in blocks
	Writeback           uint8
	NumQueues           uint16
	MaxDiscardSectors   uint32
	MaxDiscardSeg       uint32
	DiscardAlignment    uint32 // in sectors
	MaxWriteZeroes      uint32 // in sectors
	MaxWriteZeroesSeg   uint32
	WriteZeroesMayUnmap uint8
}

// writebackOffset is where Writeback stands in the configuration space.
const writebackOffset = 32

// Decode reads the first ConfigSize bytes of a configuration space.
func (c *Config) Decode(b []byte) error {
	if len(b) != ConfigSize {
		return fmt.Errorf("decode configuration space of %d bytes: %w", len(b), ErrConfig)
	}
	le := binary.LittleEndian
	*c = Config{
		Capacity:            le.Uint64(b[0:]),
		SizeMax:             le.Uint32(b[8:]),
		SegMax:              le.Uint32(b[12:]),
		BlkSize:             le.Uint32(b[20:]),
		PhysicalBlockExp:    b[24],
		AlignmentOffset:     b[25],
		MinIOSize:           le.Uint16(b[26:]),
		OptIOSize:           le.Uint32(b[28:]),
		Writeback:           b[writebackOffset],
		NumQueues:           le.Uint16(b[34:]),
		MaxDiscardSectors:   le.Uint32(b[36:]),
		MaxDiscardSeg:       le.Uint32(b[40:]),
		DiscardAlignment:    le.Uint32(b[44:]),
		MaxWriteZeroes:      le.Uint32(b[48:]),
		MaxWriteZeroesSeg:   le.Uint32(b[52:]),
		WriteZeroesMayUnmap: b[56],
	}
	return nil
}

func putHeader(b []byte, typ uint32, sector uint64) {
	binary.LittleEndian.PutUint32(b[0:], typ)
	binary.LittleEndian.PutUint32(b[4:], 0)
	binary.LittleEndian.PutUint64(b[8:], sector)
}

// Range is one range of a TypeDiscard or TypeWriteZeroes (clause 5.2.6).
type Range struct {
	Sector  uint64
	Sectors uint32
	Flags   uint32
}

// Append puts the wire form of a range behind b.
func (r Range) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, r.Sector)
	b = binary.LittleEndian.AppendUint32(b, r.Sectors)
	return binary.LittleEndian.AppendUint32(b, r.Flags)
}

// deviceReads tells whether the data of such a request goes to the device.
func deviceReads(typ uint32) bool {
	return typ == TypeOut || typ == TypeDiscard || typ == TypeWriteZeroes
}
