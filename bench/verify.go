package bench

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"sealblk/vhost/frontend"
)

// maxVerifyBlocks bounds what a verifier remembers to 2 GiB for each queue.
const maxVerifyBlocks = 1 << 29

// Each sector of a stamped block says where it belongs and which write it is from:
//
//	0  offset on the device, in bytes
//	8  generation of the block
//	12 CRC-32C of the rest of the sector, offset and generation included
//	16 pseudo-random bytes
const (
	stampGeneration = 8
	stampSum        = 12
	stampBody       = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp fills a block for a write to the device at off.
func stamp(p []byte, off uint64, generation uint32) {
	for ; len(p) > 0; p, off = p[frontend.SectorSize:], off+frontend.SectorSize {
		s := p[:frontend.SectorSize]
		binary.LittleEndian.PutUint64(s, off)
		binary.LittleEndian.PutUint32(s[stampGeneration:], generation)
		x := mix(off ^ uint64(generation)<<40)
		for i := stampBody; i < len(s); i += 8 {
			x = x*6364136223846793005 + 1442695040888963407
			binary.LittleEndian.PutUint64(s[i:], x^x>>31)
		}
		binary.LittleEndian.PutUint32(s[stampSum:], sum(s))
	}
}

func sum(s []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, s[:stampSum]), castagnoli, s[stampBody:])
}

// checkStamp finds the first sector that is not what the write of that generation
// stored at off.
func checkStamp(p []byte, off uint64, generation uint32) error {
	for ; len(p) > 0; p, off = p[frontend.SectorSize:], off+frontend.SectorSize {
		s := p[:frontend.SectorSize]
		at, gen := binary.LittleEndian.Uint64(s), binary.LittleEndian.Uint32(s[stampGeneration:])
		switch {
		case sum(s) != binary.LittleEndian.Uint32(s[stampSum:]):
			return fmt.Errorf("offset %d (%#x): the sector is damaged: write %d was expected: %w", off, off, generation, ErrMismatch)
		case at != off:
			return fmt.Errorf("offset %d (%#x): holds the sector of offset %d: %w", off, off, at, ErrMismatch)
		case gen != generation:
			return fmt.Errorf("offset %d (%#x): holds write %d of the sector, not %d: %w", off, off, gen, generation, ErrMismatch)
		}
	}
	return nil
}

// verifier knows what each block of one queue holds. A block is in one request at a
// time.
type verifier struct {
	first, size uint64   // in blocks, in bytes
	generations []uint32 // 0: never written
	busy        []bool
	slots       []claim
}

// claim is the block that a slot is about.
type claim struct {
	block uint64 // within the queue's part
	typ   uint32
}

func newVerifier(w *Workload, first, blocks uint64) *verifier {
	return &verifier{
		first: first, size: uint64(w.BlockSize),
		generations: make([]uint32, blocks), busy: make([]bool, blocks), slots: make([]claim, w.IODepth),
	}
}

// claim takes a block for a slot, or the next one that is in no request, and stamps
// what is to be written. It returns the block.
func (v *verifier) claim(slot int, typ uint32, block uint64, data []byte) uint64 {
	i := block - v.first
	for v.busy[i] {
		if i++; i == uint64(len(v.busy)) {
			i = 0
		}
	}
	v.busy[i] = true
	v.slots[slot] = claim{i, typ}
	if typ == frontend.TypeOut {
		stamp(data, (v.first+i)*v.size, v.generations[i]+1)
	}
	return v.first + i
}

// finish checks what a slot read, and gives its block back.
func (v *verifier) finish(slot int, data []byte) error {
	c := v.slots[slot]
	v.busy[c.block] = false
	if c.typ == frontend.TypeOut {
		v.generations[c.block]++
		return nil
	}
	return checkStamp(data, (v.first+c.block)*v.size, v.generations[c.block])
}
