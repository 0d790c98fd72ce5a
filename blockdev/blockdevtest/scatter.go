package blockdevtest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"sealblk/blockdev"
)

const canary = 0xA5

// Scatter is memory in pieces of any length and alignment, with canaries between
// them.
type Scatter struct {
	mem     []byte
	Buffers [][]byte
	gap     int
}

// NewScatter makes pieces of the given lengths, each after gap bytes of canary, so
// that gap decides their alignment.
func NewScatter(gap int, lengths ...int) *Scatter {
	total := gap
	for _, n := range lengths {
		total += n + gap
	}
	s := &Scatter{mem: make([]byte, total), gap: gap}
	copy(s.mem, bytes.Repeat([]byte{canary}, total))
	at := gap
	for _, n := range lengths {
		s.Buffers = append(s.Buffers, s.mem[at:at+n])
		at += n + gap
	}
	return s
}

// Fill spreads data over the pieces.
func (s *Scatter) Fill(data []byte) *Scatter {
	for _, b := range s.Buffers {
		data = data[copy(b, data):]
	}
	return s
}

// Bytes is what the pieces hold, joined.
func (s *Scatter) Bytes() []byte {
	var data []byte
	for _, b := range s.Buffers {
		data = append(data, b...)
	}
	return data
}

// Intact reports whether the memory between the pieces is as it was.
func (s *Scatter) Intact() bool {
	at := 0
	for _, b := range append(s.Buffers, nil) {
		if bytes.Count(s.mem[at:at+s.gap], []byte{canary}) != s.gap {
			return false
		}
		at += s.gap + len(b)
	}
	return true
}

// Request makes a request over the pieces.
func (s *Scatter) Request(op blockdev.Op, offset int64) *blockdev.Request {
	r := &blockdev.Request{Op: op, Offset: offset, Buffers: s.Buffers}
	r.Length = r.Buffered()
	return r
}

// Noise makes n bytes that look random and depend on the seed only.
func Noise(seed uint64, n int64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	data := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(data) // never fails
	return data
}
