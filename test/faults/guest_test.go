package faults

import (
	"bytes"

	"pgregory.net/rapid"

	"sealblk/blockdev/blockdevtest"
	"sealblk/vhost/frontend"
)

// guest is what a driver knows of its disk: of each unit, all that it may hold. A
// write that failed leaves both, and a read settles it.
type guest struct {
	*stack
	unit   int64
	may    [][][]byte // by unit; nil is zeros
	busy   []bool
	failed uint64
}

func newGuest(s *stack, capacity, unit int64) *guest {
	g := &guest{stack: s, unit: unit, may: make([][][]byte, capacity/unit), busy: make([]bool, capacity/unit)}
	for i := range g.may {
		g.may[i] = [][]byte{nil}
	}
	return g
}

// claim draws a range that nothing in flight touches; n is 0 if what it drew is not
// free.
func (g *guest) claim(rt *rapid.T) (first, n int64) {
	first = rapid.Int64Range(0, int64(len(g.may))-1).Draw(rt, "unit")
	n = rapid.Int64Range(1, min(maxBytes/g.unit, int64(len(g.may))-first)).Draw(rt, "units")
	for i := first; i < first+n; i++ {
		if g.busy[i] {
			n = i - first
		}
	}
	g.mark(first, n, true)
	return first, n
}

func (g *guest) mark(first, n int64, busy bool) {
	for i := first; i < first+n; i++ {
		g.busy[i] = busy
	}
}

func (g *guest) write(first, n int64, seed uint64) {
	data := blockdevtest.Noise(seed, n*g.unit)
	g.submit(frontend.TypeOut, first*g.unit, data, n*g.unit, func(err error, _ []byte) { g.changed(first, n, data, err) })
}

// erase makes a range zeros, by either type.
func (g *guest) erase(typ uint32, first, n int64) {
	g.submit(typ, first*g.unit, nil, n*g.unit, func(err error, _ []byte) { g.changed(first, n, nil, err) })
}

func (g *guest) changed(first, n int64, data []byte, err error) {
	g.mark(first, n, false)
	if err != nil {
		g.failed++
	}
	for i := range n {
		var v []byte
		if data != nil {
			v = data[i*g.unit : (i+1)*g.unit]
		}
		if err == nil {
			g.may[first+i] = nil
		}
		g.may[first+i] = append(g.may[first+i], v)
	}
}

func (g *guest) flush() {
	g.submit(frontend.TypeFlush, 0, nil, 0, func(err error, _ []byte) {
		if err != nil {
			g.failed++
		}
	})
}

func (g *guest) read(first, n int64) {
	g.submit(frontend.TypeIn, first*g.unit, nil, n*g.unit, func(err error, in []byte) {
		g.mark(first, n, false)
		if err != nil {
			g.failed++
			return
		}
		for i := range n {
			g.settle(first+i, in[i*g.unit:(i+1)*g.unit])
		}
	})
}

func (g *guest) settle(unit int64, got []byte) {
	g.t.Helper()
	if !oneOf(got, g.may[unit]) {
		g.t.Fatalf("unit %d holds none of the %d things that it may: %x...", unit, len(g.may[unit]), got[:16])
	}
	g.may[unit] = [][]byte{bytes.Clone(got)}
}

func oneOf(got []byte, may [][]byte) bool {
	for _, v := range may {
		if v == nil && len(bytes.TrimLeft(got, "\x00")) == 0 || bytes.Equal(got, v) {
			return true
		}
	}
	return false
}

// readAll reads and settles the whole disk; nothing may fail.
func (g *guest) readAll() {
	g.t.Helper()
	before := g.failed
	most := maxBytes / g.unit
	for first := int64(0); first < int64(len(g.may)); first += most {
		g.read(first, min(most, int64(len(g.may))-first))
	}
	g.drain()
	if g.failed != before {
		g.t.Fatalf("%d reads failed", g.failed-before)
	}
}

// fullLoad has every slot and more chunks than there are in use at once, twice.
func (g *guest) fullLoad(seed uint64) {
	g.t.Helper()
	before := g.failed
	for round := range uint64(2) {
		n := int64(len(g.may)) / (queueSize / 2)
		for i := range int64(queueSize / 2) {
			g.write(i*n, n, seed+round*1000+uint64(i))
		}
		g.drain()
	}
	if g.failed != before {
		g.t.Fatalf("%d writes of a full load failed afterwards", g.failed-before)
	}
}
