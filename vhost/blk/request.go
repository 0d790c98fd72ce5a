package blk

import (
	"encoding/binary"

	"sealblk/vhost/virtqueue"
)

// request is what a chain asks for.
type request struct {
	// complete: there was a whole header.
	complete bool
	typ      uint32
	sector   uint64 // in units of 512 bytes
	// out is the data that the device may read, in that it may write. Both lie in
	// the chain.
	out, in       [][]byte
	outLen, inLen uint64
	// status is the byte for the answer.
	status []byte
}

// parse reads a chain, and changes its lists of pieces: it cuts off the header and
// the status. Only the header is read from guest memory.
func parse(c *virtqueue.Chain) (r request, err error) {
	if len(c.Writable) == 0 {
		return r, ErrNoStatus
	}
	r.in, r.status = cutStatus(c.Writable)
	var header [headerSize]byte
	r.complete, r.out = cutHeader(&header, c.Readable)
	r.typ = binary.LittleEndian.Uint32(header[0:4])
	r.sector = binary.LittleEndian.Uint64(header[8:16])
	r.outLen, r.inLen = length(r.out), length(r.in)
	return r, nil
}

// cutStatus returns the last byte, and what precedes it. Pieces are never empty.
func cutStatus(pieces [][]byte) (rest [][]byte, status []byte) {
	i := len(pieces) - 1
	end := len(pieces[i]) - statusSize
	status = pieces[i][end:]
	if end == 0 {
		return pieces[:i], status
	}
	pieces[i] = pieces[i][:end]
	return pieces, status
}

// cutHeader copies the header and returns what follows it.
func cutHeader(header *[headerSize]byte, pieces [][]byte) (complete bool, rest [][]byte) {
	n := 0
	for i, p := range pieces {
		k := copy(header[n:], p)
		if n += k; n < headerSize {
			continue
		}
		if k == len(p) {
			return true, pieces[i+1:]
		}
		pieces[i] = p[k:]
		return true, pieces[i:]
	}
	return false, nil
}

// length does not overflow: pieces are mapped memory, or at most 2^16 times 2^32.
func length(pieces [][]byte) (n uint64) {
	for _, p := range pieces {
		n += uint64(len(p))
	}
	return n
}

// scatter copies src to pieces, which have room for it.
func scatter(pieces [][]byte, src []byte) {
	for _, p := range pieces {
		src = src[copy(p, src):]
	}
}
