package virtqueue

import (
	"errors"

	"sealblk/vhost/memory"
)

// Chain is a descriptor chain that was taken from the ring: a slot that its user
// allocates once and pops into again and again.
type Chain struct {
	// Head names the chain in the used ring.
	Head uint16
	// Readable and Writable are the pieces of guest memory to read from and to
	// write to, in the order of the chain. Descriptors of length 0 leave none.
	Readable [][]byte
	Writable [][]byte
	// Writes is where the buffers of Writable lie, in the same order. It is kept if
	// Config.Writes asks for it.
	Writes []Range

	pieces [][]byte // what both lie in: first the readable ones
}

// Range is a piece of guest-physical memory, in bytes.
type Range struct{ Addr, Len uint64 }

// NewChain makes a slot with room for a number of pieces. A chain that needs more,
// up to the limit of its queue, makes the slot grow.
func NewChain(pieces int) *Chain { return &Chain{pieces: make([][]byte, 0, pieces)} }

// parser walks chains. It belongs to a queue, so that it is allocated once.
type parser struct {
	view        memory.View
	direct      table
	indirect    table
	indirectOK  bool // negotiated
	maxIndirect int
	maxPieces   int
	keepWrites  bool

	// Of the chain at hand.
	pieces   [][]byte
	readable int // how many of them are, once one is writable
	writable bool
	writes   []Range
}

func newParser(cfg *Config) parser {
	longest := max(cfg.Size, MinIndirect)
	return parser{
		direct:      table{pieces: [][]byte{cfg.Desc}, size: cfg.Size},
		indirect:    table{pieces: make([][]byte, 0, memory.MaxRegions)},
		indirectOK:  cfg.Indirect,
		maxIndirect: longest,
		maxPieces:   longest + memory.MaxRegions,
		keepWrites:  cfg.Writes,
	}
}

// parse reads the chain that starts at head, each descriptor once.
func (p *parser) parse(c *Chain, head uint16) error {
	p.pieces, p.readable, p.writable, p.writes = c.pieces[:0], 0, false, c.Writes[:0]
	err := p.walk(&p.direct, head)
	c.Head, c.pieces, c.Writes = head, p.pieces, p.writes
	c.Readable, c.Writable = nil, nil
	if err != nil {
		return err
	}
	if !p.writable {
		p.readable = len(p.pieces)
	}
	c.Readable, c.Writable = p.pieces[:p.readable:p.readable], p.pieces[p.readable:]
	return nil
}

// walk follows a chain through a table from i on, which is in the table. It visits no more descriptors than the
// table has, which ends a loop.
func (p *parser) walk(t *table, i uint16) error {
	for range t.size {
		d := t.read(int(i))
		if d.Flags&DescIndirect != 0 {
			return p.walkIndirect(t, &d)
		}
		if err := p.add(&d); err != nil {
			return err
		}
		if d.Flags&DescNext == 0 {
			return nil
		}
		if i = d.Next; int(i) >= t.size {
			return ErrNext
		}
	}
	return ErrTooLong
}

// walkIndirect goes on in the table that d names. It may stand at the end of a
// chain of normal descriptors (clause 2.7.5.3.2); its write flag does not count.
func (p *parser) walkIndirect(from *table, d *Desc) error {
	switch {
	case !p.indirectOK:
		return ErrIndirect
	case from == &p.indirect:
		return ErrNested
	case d.Flags&DescNext != 0:
		return ErrIndirectNext
	case d.Len == 0, d.Len%DescSize != 0, d.Len/DescSize > uint32(p.maxIndirect):
		return ErrIndirectLength
	}
	pieces, err := p.view.Translate(d.Addr, uint64(d.Len), p.indirect.pieces[:0])
	if err != nil {
		return ErrAddress
	}
	p.indirect.pieces, p.indirect.size = pieces, int(d.Len/DescSize)
	return p.walk(&p.indirect, 0)
}

// add translates a buffer.
func (p *parser) add(d *Desc) error {
	if d.Flags&DescWrite != 0 {
		if !p.writable {
			p.writable, p.readable = true, len(p.pieces)
		}
		if p.keepWrites {
			p.writes = append(p.writes, Range{d.Addr, uint64(d.Len)})
		}
	} else if p.writable {
		return ErrOrder
	}
	for {
		pieces, err := p.view.Translate(d.Addr, uint64(d.Len), p.pieces)
		if err == nil {
			p.pieces = pieces
			return nil
		}
		if !errors.Is(err, memory.ErrTooManyPieces) {
			return ErrAddress
		}
		if !p.grow() {
			return ErrPieces
		}
	}
}

// grow makes room for more pieces. The slot keeps it, so that this ends after a
// few chains of an unusual driver.
func (p *parser) grow() bool {
	n := min(2*cap(p.pieces)+8, p.maxPieces)
	if n <= cap(p.pieces) {
		return false
	}
	p.pieces = append(make([][]byte, 0, n), p.pieces...)
	return true
}

// table is a descriptor table. An indirect one may be scattered over memory
// regions, even in the middle of a descriptor.
type table struct {
	pieces [][]byte
	size   int // in descriptors
}

func (t *table) read(i int) Desc {
	var raw [DescSize]byte
	off, got := i*DescSize, 0
	for _, piece := range t.pieces {
		if off >= len(piece) {
			off -= len(piece)
			continue
		}
		if got += copy(raw[got:], piece[off:]); got == DescSize {
			break
		}
		off = 0
	}
	return DecodeDesc(&raw)
}
