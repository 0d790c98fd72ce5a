package protocol

import (
	"encoding/binary"
	"fmt"
)

// Sizes of payloads on the wire, in bytes.
const (
	U64Size         = 8
	VringStateSize  = 8
	VringAddrSize   = 40
	VringAreaSize   = 24
	LogSize         = 16
	InflightSize    = 24
	DeviceStateSize = 8

	// The specification's table gives 20 bytes; QEMU and its library send the C
	// structure with its tail padding, and insist on it in a reply.
	inflightUnpadded = 20
)

// AppendU64 puts the payload of the many messages that carry one number behind b.
func AppendU64(b []byte, v uint64) []byte { return binary.NativeEndian.AppendUint64(b, v) }

// DecodeU64 reads such a payload.
func DecodeU64(b []byte) (uint64, error) {
	if err := checkSize("u64", b, U64Size); err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(b), nil
}

// DecodeEmpty checks that a message that has no payload has none.
func DecodeEmpty(b []byte) error { return checkSize("empty payload", b, 0) }

// VringState is the payload of SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ENABLE,
// GET_VRING_BASE and its reply, VRING_KICK and others: one number for one ring.
type VringState struct {
	Index uint32
	Num   uint32
}

// Append puts the wire form behind b.
func (s VringState) Append(b []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, s.Index)
	return binary.NativeEndian.AppendUint32(b, s.Num)
}

// Decode reads the wire form.
func (s *VringState) Decode(b []byte) error {
	if err := checkSize("vring state", b, VringStateSize); err != nil {
		return err
	}
	s.Index = binary.NativeEndian.Uint32(b)
	s.Num = binary.NativeEndian.Uint32(b[4:])
	return nil
}

// VringAddrLog (VHOST_VRING_F_LOG) in VringAddr.Flags: writes to the used ring are
// logged at VringAddr.Log.
const VringAddrLog uint32 = 1 << 0

// VringAddr is the payload of SET_VRING_ADDR. Descriptor, Used and Available are
// addresses in the front-end's own address space (MemoryRegion.UserAddr), Log is
// guest-physical.
type VringAddr struct {
	Index      uint32
	Flags      uint32
	Descriptor uint64
	Used       uint64
	Available  uint64
	Log        uint64
}

// Append puts the wire form behind b.
func (a *VringAddr) Append(b []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, a.Index)
	b = binary.NativeEndian.AppendUint32(b, a.Flags)
	return appendU64s(b, a.Descriptor, a.Used, a.Available, a.Log)
}

// Decode reads the wire form.
func (a *VringAddr) Decode(b []byte) error {
	if err := checkSize("vring address", b, VringAddrSize); err != nil {
		return err
	}
	a.Index = binary.NativeEndian.Uint32(b)
	a.Flags = binary.NativeEndian.Uint32(b[4:])
	decodeU64s(b[8:], &a.Descriptor, &a.Used, &a.Available, &a.Log)
	return nil
}

const (
	vringFDIndexMask uint64 = 0xff
	vringFDNone      uint64 = 1 << 8
)

// VringFD is the payload of SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR. The
// descriptor itself travels beside the message, unless NoFD says that there is
// none.
type VringFD struct {
	Index uint8
	NoFD  bool
}

// Append puts the wire form behind b.
func (v VringFD) Append(b []byte) []byte {
	u := uint64(v.Index)
	if v.NoFD {
		u |= vringFDNone
	}
	return AppendU64(b, u)
}

// Decode reads the wire form. Bits that the specification does not define must be
// zero.
func (v *VringFD) Decode(b []byte) error {
	u, err := DecodeU64(b)
	if err != nil {
		return err
	}
	if u&^(vringFDIndexMask|vringFDNone) != 0 {
		return fmt.Errorf("decode vring descriptor %#x: %w", u, ErrPayloadValue)
	}
	v.Index, v.NoFD = uint8(u&vringFDIndexMask), u&vringFDNone != 0
	return nil
}

// VringArea is the payload of BACKEND_VRING_HOST_NOTIFIER_MSG. The ring and the
// absence of a descriptor are coded in Ring as in VringFD.
type VringArea struct {
	Ring   uint64
	Size   uint64
	Offset uint64
}

// Append puts the wire form behind b.
func (a *VringArea) Append(b []byte) []byte { return appendU64s(b, a.Ring, a.Size, a.Offset) }

// Decode reads the wire form.
func (a *VringArea) Decode(b []byte) error {
	if err := checkSize("vring area", b, VringAreaSize); err != nil {
		return err
	}
	decodeU64s(b, &a.Ring, &a.Size, &a.Offset)
	return nil
}

// Log is the payload of SET_LOG_BASE: the part of the descriptor's file that holds
// the dirty bitmap, in bytes.
type Log struct {
	Size   uint64
	Offset uint64
}

// Append puts the wire form behind b.
func (l Log) Append(b []byte) []byte { return appendU64s(b, l.Size, l.Offset) }

// Decode reads the wire form.
func (l *Log) Decode(b []byte) error {
	if err := checkSize("log", b, LogSize); err != nil {
		return err
	}
	decodeU64s(b, &l.Size, &l.Offset)
	return nil
}

// Inflight is the payload of GET_INFLIGHT_FD, its reply, and SET_INFLIGHT_FD: the
// part of the descriptor's file that holds the in-flight region, in bytes.
type Inflight struct {
	MmapSize   uint64
	MmapOffset uint64
	NumQueues  uint16
	QueueSize  uint16
}

// Append puts the wire form behind b, with its padding.
func (i *Inflight) Append(b []byte) []byte {
	b = appendU64s(b, i.MmapSize, i.MmapOffset)
	b = binary.NativeEndian.AppendUint16(b, i.NumQueues)
	b = binary.NativeEndian.AppendUint16(b, i.QueueSize)
	return append(b, 0, 0, 0, 0)
}

// Decode reads the wire form, with or without its padding.
func (i *Inflight) Decode(b []byte) error {
	if len(b) != inflightUnpadded {
		if err := checkSize("in-flight description", b, InflightSize); err != nil {
			return err
		}
	}
	decodeU64s(b, &i.MmapSize, &i.MmapOffset)
	i.NumQueues = binary.NativeEndian.Uint16(b[16:])
	i.QueueSize = binary.NativeEndian.Uint16(b[18:])
	return nil
}

// DeviceState is the payload of SET_DEVICE_STATE_FD.
type DeviceState struct {
	// Direction is 0 to save and 1 to load.
	Direction uint32
	// Phase is 0: the device is stopped.
	Phase uint32
}

// Append puts the wire form behind b.
func (d DeviceState) Append(b []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, d.Direction)
	return binary.NativeEndian.AppendUint32(b, d.Phase)
}

// Decode reads the wire form.
func (d *DeviceState) Decode(b []byte) error {
	if err := checkSize("device state transfer", b, DeviceStateSize); err != nil {
		return err
	}
	d.Direction = binary.NativeEndian.Uint32(b)
	d.Phase = binary.NativeEndian.Uint32(b[4:])
	if d.Direction > 1 || d.Phase != 0 {
		return fmt.Errorf("decode device state transfer, direction %d, phase %d: %w", d.Direction, d.Phase, ErrPayloadValue)
	}
	return nil
}

func checkSize(what string, b []byte, want int) error {
	if len(b) != want {
		return fmt.Errorf("decode %s of %d bytes, not %d: %w", what, len(b), want, ErrPayloadSize)
	}
	return nil
}

func appendU64s(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.NativeEndian.AppendUint64(b, v)
	}
	return b
}

func decodeU64s(b []byte, vs ...*uint64) {
	for i, v := range vs {
		*v = binary.NativeEndian.Uint64(b[8*i:])
	}
}
