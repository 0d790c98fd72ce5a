package blk

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzSegments cuts ranges anywhere and wants the same ones, or none.
func FuzzSegments(f *testing.F) {
	f.Add(make([]byte, 16), []byte{3})
	f.Add(bytes.Repeat([]byte{0xff}, 256), []byte{15, 0, 16})
	f.Add(make([]byte, 272), []byte{})
	f.Add([]byte("short"), []byte{0})
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		mem := make([]segment, 0, maxSegments)
		got, ok := readSegments(mem, cut(data, cuts), uint64(len(data)))
		n := len(data) / segmentSize
		if ok != (len(data)%segmentSize == 0 && n > 0 && n <= maxSegments) {
			t.Fatalf("%d bytes: %v", len(data), ok)
		}
		if !ok {
			return
		}
		if len(got) != n || &got[0] != &mem[:1][0] {
			t.Fatalf("%d ranges of %d, or in other memory", len(got), n)
		}
		for i, c := range got {
			raw := data[i*segmentSize:]
			if c.sector != binary.LittleEndian.Uint64(raw) || c.sectors != binary.LittleEndian.Uint32(raw[8:]) || c.flags != binary.LittleEndian.Uint32(raw[12:]) {
				t.Fatalf("range %d: %+v", i, c)
			}
		}
	})
}
