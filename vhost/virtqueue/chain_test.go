package virtqueue

import (
	"errors"
	"slices"
	"testing"
)

const (
	next  = DescNext
	write = DescWrite
	indir = DescIndirect
)

// loop is a table whose descriptors all lead to the one behind, in a circle.
func loop(n int) []Desc {
	descs := make([]Desc, n)
	for i := range descs {
		descs[i] = Desc{bufGuest, 1, next, uint16((i + 1) % n)}
	}
	return descs
}

func TestChains(t *testing.T) {
	const tab = bufGuest + 0x4000 // where indirect tables lie
	for _, c := range []struct {
		name               string
		descs              []Desc
		indirect           []Desc
		readable, writable []int
		want               error
	}{
		{name: "one readable", descs: []Desc{{bufGuest, 16, 0, 0}}, readable: []int{16}},
		{name: "one writable", descs: []Desc{{bufGuest, 16, write, 0}}, writable: []int{16}},
		{name: "both", descs: []Desc{{bufGuest, 16, next, 1}, {bufGuest, 512, next | write, 2}, {bufGuest, 1, write, 0}},
			readable: []int{16}, writable: []int{512, 1}},
		{name: "empty ones", descs: []Desc{{0, 0, next, 1}, {bufGuest, 3, next, 2}, {0, 0, next | write, 3}, {bufGuest, 1, write, 0}},
			readable: []int{3}, writable: []int{1}},
		{name: "an empty one anywhere", descs: []Desc{{1 << 63, 0, 0, 0}}},
		{name: "across regions", descs: []Desc{{bufGuest + bufSize - 10, 30, write, 0}}, writable: []int{10, 20}},
		{name: "across three regions is a hole", descs: []Desc{{bufGuest + bufSize - 10, bufSize + 11, write, 0}}, want: ErrAddress},
		{name: "full table", descs: []Desc{{bufGuest, 1, next, 1}, {bufGuest, 1, next, 2}, {bufGuest, 1, next, 3}, {bufGuest, 1, next, 4},
			{bufGuest, 1, next, 5}, {bufGuest, 1, next, 6}, {bufGuest, 1, next, 7}, {bufGuest, 1, 0, 0}}, readable: []int{1, 1, 1, 1, 1, 1, 1, 1}},
		{name: "next without the flag does not count", descs: []Desc{{bufGuest, 1, 0, 999}}, readable: []int{1}},

		{name: "points to itself", descs: []Desc{{bufGuest, 1, next, 0}}, want: ErrTooLong},
		{name: "loop", descs: loop(8), want: ErrTooLong},
		{name: "next outside", descs: []Desc{{bufGuest, 1, next, 8}}, want: ErrNext},
		{name: "next far outside", descs: []Desc{{bufGuest, 1, next, 65535}}, want: ErrNext},
		{name: "readable after writable", descs: []Desc{{bufGuest, 1, next | write, 1}, {bufGuest, 1, 0, 0}}, want: ErrOrder},
		{name: "empty readable after empty writable", descs: []Desc{{bufGuest, 0, next | write, 1}, {bufGuest, 0, 0, 0}}, want: ErrOrder},
		{name: "outside memory", descs: []Desc{{bufGuest - 1, 1, 0, 0}}, want: ErrAddress},
		{name: "end outside memory", descs: []Desc{{bufGuest + 2*bufSize - 1, 2, 0, 0}}, want: ErrAddress},
		{name: "address wraps", descs: []Desc{{1<<64 - 1, 2, 0, 0}}, want: ErrAddress},
		{name: "a user address", descs: []Desc{{bufUser, 1, 0, 0}}, want: ErrAddress},
		{name: "4 GiB", descs: []Desc{{bufGuest, 1<<32 - 1, 0, 0}}, want: ErrAddress},

		{name: "indirect", descs: []Desc{{tab, 32, indir, 0}}, indirect: []Desc{{bufGuest, 7, next, 1}, {bufGuest, 9, write, 0}},
			readable: []int{7}, writable: []int{9}},
		{name: "indirect with write flag", descs: []Desc{{tab, 16, indir | write, 0}}, indirect: []Desc{{bufGuest, 7, 0, 0}}, readable: []int{7}},
		{name: "indirect behind a normal one", descs: []Desc{{bufGuest, 5, next, 1}, {tab, 16, indir, 0}}, indirect: []Desc{{bufGuest, 7, 0, 0}}, readable: []int{5, 7}},
		{name: "indirect, out of order", descs: []Desc{{tab, 48, indir, 0}}, indirect: []Desc{{bufGuest, 1, next, 2}, {bufGuest, 3, write, 0}, {bufGuest, 2, next, 1}},
			readable: []int{1, 2}, writable: []int{3}},
		{name: "indirect longer than the queue", descs: []Desc{{tab, 160, indir, 0}}, indirect: chainOf(10), readable: slices.Repeat([]int{1}, 10)},
		{name: "indirect with next", descs: []Desc{{tab, 16, indir | next, 1}, {bufGuest, 1, 0, 0}}, indirect: []Desc{{bufGuest, 7, 0, 0}}, want: ErrIndirectNext},
		{name: "indirect nested", descs: []Desc{{tab, 16, indir, 0}}, indirect: []Desc{{tab, 16, indir, 0}}, want: ErrNested},
		{name: "indirect loop", descs: []Desc{{tab, 32, indir, 0}}, indirect: loop(2), want: ErrTooLong},
		{name: "indirect next outside", descs: []Desc{{tab, 16, indir, 0}}, indirect: []Desc{{bufGuest, 1, next, 1}}, want: ErrNext},
		{name: "indirect empty", descs: []Desc{{tab, 0, indir, 0}}, want: ErrIndirectLength},
		{name: "indirect odd length", descs: []Desc{{tab, 17, indir, 0}}, want: ErrIndirectLength},
		{name: "indirect too long", descs: []Desc{{tab, 16 * (MinIndirect + 1), indir, 0}}, want: ErrIndirectLength},
		{name: "indirect absurdly long", descs: []Desc{{tab, 0xfffffff0, indir, 0}}, want: ErrIndirectLength},
		{name: "indirect outside memory", descs: []Desc{{0, 16, indir, 0}}, want: ErrAddress},
		{name: "order across the tables", descs: []Desc{{bufGuest, 1, next | write, 1}, {tab, 16, indir, 0}}, indirect: []Desc{{bufGuest, 7, 0, 0}}, want: ErrOrder},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newTestRing(t, 8, indirect)
			for i, d := range c.descs {
				r.setDesc(i, d)
			}
			r.guestIndirect(tab, c.indirect...)
			r.offer(0)
			chain := NewChain(2)
			ok, err := r.Pop(chain)
			if !errors.Is(err, c.want) || ok != (c.want == nil) {
				t.Fatalf("Pop: %v, %v, want %v", ok, err, c.want)
			}
			if err != nil {
				if len(chain.Readable)+len(chain.Writable) != 0 || r.NextAvail() != 0 {
					t.Fatalf("a bad chain left %v, %v, next index %d", chain.Readable, chain.Writable, r.NextAvail())
				}
				return
			}
			if got := lengths(chain.Readable); !slices.Equal(got, c.readable) {
				t.Errorf("readable %v, want %v", got, c.readable)
			}
			if got := lengths(chain.Writable); !slices.Equal(got, c.writable) {
				t.Errorf("writable %v, want %v", got, c.writable)
			}
		})
	}
}

// chainOf is a table of n readable bytes, one each.
func chainOf(n int) []Desc {
	descs := make([]Desc, n)
	for i := range descs {
		descs[i] = Desc{bufGuest, 1, next, uint16(i + 1)}
	}
	descs[n-1].Flags = 0
	return descs
}

func TestIndirectNeedsTheFeature(t *testing.T) {
	r := newTestRing(t, 8)
	r.setDesc(0, Desc{bufGuest, 16, indir, 0})
	r.offer(0)
	if ok, err := r.Pop(NewChain(2)); ok || !errors.Is(err, ErrIndirect) {
		t.Fatalf("Pop: %v, %v", ok, err)
	}
}

func TestIndirectTableAcrossRegions(t *testing.T) {
	for cut := 1; cut < 2*DescSize; cut++ {
		r := newTestRing(t, 8, indirect)
		tab := uint64(bufGuest + bufSize - cut)
		r.guestIndirect(tab, Desc{bufGuest, 11, next, 1}, Desc{bufGuest + 100, 22, write, 0})
		r.setDesc(3, Desc{tab, 32, indir, 0})
		r.offer(3)
		c := NewChain(2)
		r.mustPop(c)
		if c.Head != 3 || !slices.Equal(lengths(c.Readable), []int{11}) || !slices.Equal(lengths(c.Writable), []int{22}) {
			t.Fatalf("cut %d: head %d, %v, %v", cut, c.Head, lengths(c.Readable), lengths(c.Writable))
		}
	}
}

// A guest that changes a descriptor after it was taken changes nothing.
func TestChainIsACopy(t *testing.T) {
	r := newTestRing(t, 8)
	r.setDesc(0, Desc{bufGuest, 16, write, 0})
	r.offer(0)
	c := NewChain(2)
	r.mustPop(c)
	r.setDesc(0, Desc{0, 0xffffffff, next, 77})
	if !slices.Equal(lengths(c.Writable), []int{16}) {
		t.Fatalf("writable %v", lengths(c.Writable))
	}
}

func TestSlotGrowsOnceAndIsBounded(t *testing.T) {
	r := newTestRing(t, 256)
	for i, d := range chainOf(200) {
		r.setDesc(i, d)
	}
	c := NewChain(1)
	r.offer(0)
	r.mustPop(c)
	if len(c.Readable) != 200 || cap(c.pieces) > r.parse.maxPieces {
		t.Fatalf("%d pieces, room for %d", len(c.Readable), cap(c.pieces))
	}
	if n := testing.AllocsPerRun(50, func() { r.offer(0); r.mustPop(c) }); n != 0 {
		t.Fatalf("%v allocations in a slot that has grown", n)
	}
}

func TestPiecesAreBounded(t *testing.T) {
	r := newTestRing(t, 8)
	r.parse.maxPieces = 3
	for i := range 4 {
		r.setDesc(i, Desc{bufGuest, 1, next, uint16(i + 1)})
	}
	r.offer(0)
	if _, err := r.Pop(NewChain(1)); !errors.Is(err, ErrPieces) {
		t.Fatalf("error %v", err)
	}
}

// FuzzChain parses whatever stands in the descriptor table and in an indirect one.
func FuzzChain(f *testing.F) {
	seed := func(descs ...Desc) {
		b := make([]byte, DescSize*len(descs))
		for i, d := range descs {
			d.Put(b[i*DescSize:])
		}
		f.Add(b, b, uint16(0))
	}
	seed(Desc{bufGuest, 16, next, 1}, Desc{bufGuest, 512, next | write, 2}, Desc{bufGuest, 1, write, 0})
	seed(Desc{bufGuest + 0x4000, 32, indir, 0}, Desc{bufGuest, 9, write, 0})
	seed(loop(8)...)
	table := newMemory(f)
	f.Fuzz(func(t *testing.T, direct, indirectTable []byte, head uint16) {
		r := newTestRingIn(t, table, 16, indirect)
		clear(r.avail)
		clear(r.used)
		clear(r.desc)
		copy(r.desc, direct)
		view := table.View()
		tab, err := view.Translate(bufGuest+0x4000, 0x4000, make([][]byte, 0, 1))
		if err != nil {
			t.Fatal(err)
		}
		clear(tab[0])
		copy(tab[0], indirectTable)
		r.offer(head)
		c := NewChain(4)
		ok, err := r.Pop(c)
		if ok == (err != nil) {
			t.Fatalf("Pop: %v, %v", ok, err)
		}
		pieces := slices.Concat(c.Readable, c.Writable)
		if len(pieces) > r.parse.maxPieces {
			t.Fatalf("%d pieces", len(pieces))
		}
		for _, p := range pieces {
			if len(p) == 0 || len(p) > bufSize && len(p) > ringSize {
				t.Fatalf("a piece of %d bytes", len(p))
			}
			_, _ = p[0], p[len(p)-1] // mapped
		}
	})
}

// TestWritesOfAChain: where the device may write is told in guest-physical terms,
// also across tables and regions, and only if asked for.
func TestWritesOfAChain(t *testing.T) {
	const tab = bufGuest + 0x4000
	for _, keep := range []bool{true, false} {
		r := newTestRing(t, 8, indirect, func(c *Config) { c.Writes = keep })
		r.setDesc(0, Desc{bufGuest, 16, next, 1})
		r.setDesc(1, Desc{tab, 48, indir, 0})
		r.guestIndirect(tab, Desc{bufGuest + 100, 7, next, 1}, Desc{bufGuest + bufSize - 10, 30, next | write, 2}, Desc{bufGuest + 5, 1, write, 0})
		r.setDesc(2, Desc{bufGuest, 16, 0, 0})
		r.offer(0, 2)
		chain := NewChain(8)
		var want []Range
		if keep {
			want = []Range{{bufGuest + bufSize - 10, 30}, {bufGuest + 5, 1}}
		}
		for _, want := range [][]Range{want, nil} { // and none of the last chain's in the next
			if ok, err := r.Pop(chain); !ok || err != nil {
				t.Fatalf("Pop: %v, %v", ok, err)
			}
			if !slices.Equal(chain.Writes, want) {
				t.Errorf("writes %v, want %v", chain.Writes, want)
			}
		}
	}
}
