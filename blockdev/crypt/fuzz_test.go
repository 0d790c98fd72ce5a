package crypt

import (
	"bytes"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
)

// FuzzFragments writes and reads with buffers whose lengths are the fuzzer's, and
// compares what is stored with other software's encryption.
func FuzzFragments(f *testing.F) {
	f.Add([]byte{1, 0, 255, 3}, []byte{9}, uint8(0), uint8(0))
	f.Add([]byte{16, 16, 0, 15, 17}, []byte{1, 1, 1}, uint8(3), uint8(3))
	f.Add([]byte{}, []byte{200, 2}, uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, out, in []byte, unitLog, place uint8) {
		unit := 512 << (unitLog % 4)
		r := newRig(t, unit, Options{}, tiny, blockdevtest.FaultOptions{Order: blockdevtest.Reversed}, 2)
		offset := int64(place) * int64(unit)
		size := 24 << 10
		plain := blockdevtest.Noise(uint64(place), int64(size))
		r.Must(blockdevtest.NewScatter(int(place%9), lengths(out, size)...).Fill(plain).Request(blockdev.Write, offset))
		if !bytes.Equal(r.mem.Bytes()[offset:offset+int64(size)], newOracle(t, unit).stored(plain, offset)) {
			t.Fatal("what is stored is not AES-XTS of what was written")
		}
		s := blockdevtest.NewScatter(int(place%7), lengths(in, size)...)
		r.Must(s.Request(blockdev.Read, offset))
		if !bytes.Equal(s.Bytes(), plain) || !s.Intact() {
			t.Fatal("read something else than was written")
		}
	})
}

// lengths cuts size bytes: a step of cuts is 32 bytes and sometimes one more, and
// the rest is the last piece.
func lengths(cuts []byte, size int) []int {
	var out []int
	for _, c := range cuts {
		n := min(int(c)*32+int(c)%4/3, size)
		out = append(out, n)
		size -= n
	}
	return append(out, size)
}
