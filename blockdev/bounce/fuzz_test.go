package bounce

import (
	"bytes"
	"testing"

	"sealblk/blockdev/blockdevtest"
)

// FuzzFragments moves data in and out of buffers whose lengths are the fuzzer's,
// in chunks, and compares with the transform of the joined data.
func FuzzFragments(f *testing.F) {
	f.Add([]byte{0, 1, 2, 255, 4}, uint8(0), uint8(1), uint16(9))
	f.Add([]byte{16, 0, 16, 1, 3}, uint8(3), uint8(2), uint16(0))
	f.Add([]byte{15, 17, 31, 33}, uint8(1), uint8(4), uint16(65535))
	f.Fuzz(func(t *testing.T, cuts []byte, unitLog, chunkUnits uint8, place uint16) {
		x := toy{512 << (unitLog % 4)}
		offset := int64(place) * int64(x.unit)
		var lengths []int
		total := 0
		for _, c := range cuts[:min(len(cuts), 64)] {
			// 32 steps make a unit of 512; every fourth length is odd.
			n := int(c)*16 + int(c)%4/3
			lengths = append(lengths, n)
			total += n
		}
		rest := -total & (x.unit - 1)
		total += rest
		plain := blockdevtest.Noise(uint64(place), int64(total))
		want := make([]byte, total)
		for i := 0; i < total; i += x.unit {
			x.apply(want[i:i+x.unit], plain[i:i+x.unit], offset+int64(i))
		}

		out := blockdevtest.NewScatter(int(place%5), append(lengths, rest)...).Fill(plain)
		in := blockdevtest.NewScatter(int(place%7), append(lengths, rest)...)
		var from, to cursor
		step := x.unit * (int(chunkUnits)%16 + 1)
		for at := 0; at < total; at += step {
			mem := make([]byte, min(step, total-at))
			gather(x, x.unit, mem, out.Buffers, &from, offset+int64(at))
			if !bytes.Equal(mem, want[at:at+len(mem)]) {
				t.Fatalf("outgoing bytes at %d are wrong", at)
			}
			scatter(x, x.unit, mem, in.Buffers, &to, offset+int64(at), nil)
		}
		if !bytes.Equal(in.Bytes(), plain) || !in.Intact() || !out.Intact() {
			t.Fatalf("incoming bytes are wrong")
		}
	})
}
