package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// codec is one payload type seen from its wire form: decode it, append it again.
type codec struct {
	name   string
	sample []byte
	again  func([]byte) ([]byte, error)
}

func numbered(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}

func table(n int) []byte {
	t := MemoryTable{N: n}
	for i := range n {
		t.Regions[i] = MemoryRegion{GuestAddr: uint64(i) << 30, Size: 1 << 30, UserAddr: 1<<46 + uint64(i)<<30, MmapOffset: uint64(i) << 12}
	}
	return t.Append(nil)
}

func inflight(n int) []byte {
	i := Inflight{MmapSize: 4096, MmapOffset: 64, NumQueues: 2, QueueSize: 256}
	return i.Append(nil)[:n]
}

var codecs = []codec{
	{"u64", numbered(8), func(b []byte) ([]byte, error) {
		v, err := DecodeU64(b)
		return AppendU64(nil, v), err
	}},
	{"vring state", numbered(8), func(b []byte) ([]byte, error) {
		var v VringState
		err := v.Decode(b)
		return v.Append(nil), err
	}},
	{"vring address", numbered(40), func(b []byte) ([]byte, error) {
		var v VringAddr
		err := v.Decode(b)
		return v.Append(nil), err
	}},
	{"vring descriptor", AppendU64(nil, 0x1ff), func(b []byte) ([]byte, error) {
		var v VringFD
		err := v.Decode(b)
		return v.Append(nil), err
	}},
	{"vring area", numbered(24), func(b []byte) ([]byte, error) {
		var v VringArea
		err := v.Decode(b)
		return v.Append(nil), err
	}},
	{"log", numbered(16), func(b []byte) ([]byte, error) {
		var v Log
		err := v.Decode(b)
		return v.Append(nil), err
	}},
	{"in-flight", inflight(24), func(b []byte) ([]byte, error) {
		var v Inflight
		err := v.Decode(b)
		return v.Append(nil), err
	}},
	{"device state", DeviceState{Direction: 1}.Append(nil), func(b []byte) ([]byte, error) {
		var v DeviceState
		err := v.Decode(b)
		return v.Append(nil), err
	}},
	{"config", (&Config{Offset: 6, Flags: 1, Data: numbered(60)}).Append(nil), func(b []byte) ([]byte, error) {
		var v Config
		err := v.Decode(b)
		return v.Append(nil), err
	}},
	{"region", (&SingleRegion{MemoryRegion{1, 2, 3, 4}}).Append(nil), func(b []byte) ([]byte, error) {
		var v SingleRegion
		err := v.Decode(b)
		return v.Append(nil), err
	}},
	{"empty table", table(0), againTable},
	{"full table", table(8), againTable},
	{"header", (&Header{Request: 24, Flags: 0x9, Size: 268}).Append(nil), func(b []byte) ([]byte, error) {
		var v Header
		err := v.Decode(b)
		return v.Append(nil), err
	}},
}

func againTable(b []byte) ([]byte, error) {
	var v MemoryTable
	err := v.Decode(b)
	return v.Append(nil), err
}

func TestRoundTrip(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.again(c.sample)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.sample, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEveryOtherSizeIsRefused(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.name, func(t *testing.T) {
			long := append(bytes.Clone(c.sample), make([]byte, 300)...)
			for n := range long {
				if n == len(c.sample) || c.name == "in-flight" && n == inflightUnpadded {
					continue
				}
				if _, err := c.again(long[:n]); !errors.Is(err, ErrPayloadSize) {
					t.Fatalf("%d bytes: %v", n, err)
				}
			}
		})
	}
}

// The offsets are those of the specification's figures.
func TestWireLayout(t *testing.T) {
	native := binary.NativeEndian
	b := numbered(40)
	var a VringAddr
	if err := a.Decode(b); err != nil {
		t.Fatal(err)
	}
	want := VringAddr{native.Uint32(b), native.Uint32(b[4:]), native.Uint64(b[8:]), native.Uint64(b[16:]), native.Uint64(b[24:]), native.Uint64(b[32:])}
	if a != want {
		t.Errorf("vring address: got %+v, want %+v", a, want)
	}
	var m MemoryTable
	if err := m.Decode(table(3)); err != nil {
		t.Fatal(err)
	}
	if m.N != 3 || m.Regions[2] != (MemoryRegion{2 << 30, 1 << 30, 1<<46 + 2<<30, 2 << 12}) {
		t.Errorf("memory table: got %+v", m)
	}
	var i Inflight
	if err := i.Decode(inflight(20)); err != nil || i != (Inflight{4096, 64, 2, 256}) {
		t.Errorf("in-flight without padding: got %+v, %v", i, err)
	}
}

func TestValuesOutOfRange(t *testing.T) {
	manyRegions := table(8)
	manyRegions[0] = 9
	config := func(offset, size uint32) []byte {
		b := binary.NativeEndian.AppendUint32(nil, offset)
		b = binary.NativeEndian.AppendUint32(b, size)
		return append(b, make([]byte, 4+min(size, 1024))...)
	}
	for _, tt := range []struct {
		name string
		err  error
	}{
		{"vring descriptor bit 9", new(VringFD).Decode(AppendU64(nil, 1<<9))},
		{"vring descriptor bit 63", new(VringFD).Decode(AppendU64(nil, 1<<63))},
		{"nine regions", new(MemoryTable).Decode(manyRegions)},
		{"config of 257 bytes", new(Config).Decode(config(0, 257))},
		{"config beyond the end", new(Config).Decode(config(250, 7))},
		{"config that wraps", new(Config).Decode(config(1<<32-1, 2))},
		{"direction of device state", new(DeviceState).Decode(DeviceState{Direction: 2}.Append(nil))},
		{"phase of device state", new(DeviceState).Decode(DeviceState{Phase: 1}.Append(nil))},
	} {
		if !errors.Is(tt.err, ErrPayloadValue) {
			t.Errorf("%s: got %v", tt.name, tt.err)
		}
	}
}

func TestHeader(t *testing.T) {
	h := NewHeader(GetConfig, FlagNeedReply)
	if !h.NeedReply() || h.IsReply() || h.Flags != 9 || h.Request != 24 {
		t.Errorf("need-reply header: %+v", h)
	}
	if h := NewHeader(BackendConfigChangeMsg, FlagReply); !h.IsReply() || h.Flags != 5 {
		t.Errorf("reply header: %+v", h)
	}
	for _, flags := range []Flags{0, 2, 3, 4} {
		h := Header{Request: 1, Flags: flags}
		if err := new(Header).Decode(h.Append(nil)); !errors.Is(err, ErrVersion) {
			t.Errorf("flags %d: %v", flags, err)
		}
	}
	big := Header{Request: 1, Flags: 1, Size: MaxPayload + 1}
	if err := new(Header).Decode(big.Append(nil)); !errors.Is(err, ErrPayloadTooLarge) {
		t.Errorf("large payload: %v", err)
	}
}

func TestNames(t *testing.T) {
	for want, got := range map[string]string{
		"GET_FEATURES":              GetFeatures.String(),
		"CHECK_DEVICE_STATE":        CheckDeviceState.String(),
		"request 0":                 Request(0).String(),
		"request 4294967295":        Request(1<<32 - 1).String(),
		"BACKEND_CONFIG_CHANGE_MSG": BackendConfigChangeMsg.String(),
		"back-end request 11":       BackendRequest(11).String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzDecode holds every decoder to its contract: no panic, and what it accepts
// it can write again, to the same bytes where nothing is reserved.
func FuzzDecode(f *testing.F) {
	for i, c := range codecs {
		f.Add(uint8(i), c.sample)
		f.Add(uint8(i), c.sample[:len(c.sample)/2])
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		c := codecs[int(which)%len(codecs)]
		once, err := c.again(b)
		if err != nil {
			if !errors.Is(err, ErrPayloadSize) && !errors.Is(err, ErrPayloadValue) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrPayloadTooLarge) {
				t.Fatalf("%s: no sentinel in %v", c.name, err)
			}
			return
		}
		twice, err := c.again(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s: %x became %x (%v)", c.name, once, twice, err)
		}
	})
}
