package crypt

import (
	"bytes"
	"fmt"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/bounce"
)

// TestTornWrite cuts the write of one data unit short after each sector of 512 bytes
// that the medium may have stored. Units beside it are what they were. Its own sectors
// are old or new plaintext, unless the unit was a hole of more than one sector: there,
// those that were not written are the decryption of zeros.
func TestTornWrite(t *testing.T) {
	const sectorSize = 512
	for _, unit := range []int{512, 4096} {
		for _, hole := range []bool{true, false} {
			t.Run(fmt.Sprintf("unit %d, hole %v", unit, hole), func(t *testing.T) {
				r := newRig(t, unit, Options{}, bounce.Config{}, blockdevtest.FaultOptions{}, 1)
				o, size := newOracle(t, unit), int64(unit)
				old := blockdevtest.Noise(1, 3*size)
				if hole {
					clear(old[size : 2*size])
					r.Write(0, old[:size])
					r.Write(2*size, old[2*size:])
				} else {
					r.Write(0, old)
				}
				before := bytes.Clone(r.mem.Bytes()[size : 2*size])
				fresh := blockdevtest.Noise(2, size)
				r.Must(request(blockdev.Write, size, fresh))
				after := bytes.Clone(r.mem.Bytes()[size : 2*size])
				noise := o.plain(make([]byte, unit), size)
				for kept := 0; kept <= unit; kept += sectorSize {
					copy(r.mem.Bytes()[size:], before)
					copy(r.mem.Bytes()[size:], after[:kept])
					got := r.Read(0, 3*size)
					if !bytes.Equal(got[:size], old[:size]) || !bytes.Equal(got[2*size:], old[2*size:]) {
						t.Fatalf("%d bytes written: a unit beside the one that was torn has changed", kept)
					}
					rest := old[size : 2*size]
					if hole && kept > 0 {
						rest = noise
					}
					want := append(bytes.Clone(fresh[:kept]), rest[kept:]...)
					if !bytes.Equal(got[size:2*size], want) {
						t.Errorf("%d bytes written: the unit is neither old nor new where it should be", kept)
					}
				}
			})
		}
	}
}
