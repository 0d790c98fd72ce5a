package blk_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/memory"
	"sealblk/vhost/blk"
	"sealblk/vhost/frontend"
)

// eraseRequest is one of 16 ranges of a block each, every second block of 32.
func eraseRequest(t testing.TB, q *frontend.Queue, typ uint32) *frontend.Request {
	t.Helper()
	r := request(t, q, typ, 0, 16*frontend.RangeSize)
	data := r.Data[:0]
	for i := range 16 {
		data = frontend.Range{Sector: uint64(2 * i), Sectors: 1}.Append(data)
	}
	return r
}

// fill writes noise from the start of the disk on and returns it.
func fill(t testing.TB, q *frontend.Queue, n int64) []byte {
	t.Helper()
	data := blockdevtest.Noise(1, n)
	if _, err := q.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return data
}

func holds(t testing.TB, q *frontend.Queue, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := q.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(want); i += 512 {
		if !bytes.Equal(got[i:i+512], want[i:i+512]) {
			t.Fatalf("sector %d holds something else", i/512)
		}
	}
}

// TestEraseSeveralRanges: all ranges of a request, and no sector else, read as zeros
// after its one completion, however the request is cut and whenever the parts of it
// complete.
func TestEraseSeveralRanges(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, o := range map[string]blockdevtest.FaultOptions{
		"at once": {}, "later": {Async: true, Order: blockdevtest.Shuffled, Seed: 5},
	} {
		t.Run(name, func(t *testing.T) {
			dev := newFault(t, memory.Options{}, o)
			d, socket := export(t, dev, blk.Options{})
			disk := open(t, socket, frontend.Options{Framing: frontend.FrameRandom(rng, 20)})
			q := disk.Queue(0)
			want := fill(t, q, capacity)
			const rounds = 40
			for i := range rounds {
				typ := frontend.TypeDiscard
				if i%2 == 1 {
					typ = frontend.TypeWriteZeroes
				}
				ranges := make([]frontend.Range, 1+rng.IntN(16))
				for j := range ranges {
					c := &ranges[j]
					c.Sector = rng.Uint64N(capacity / 512)
					c.Sectors = uint32(rng.Uint64N(min(100, capacity/512-c.Sector+1)))
					if typ == frontend.TypeWriteZeroes {
						c.Flags = rng.Uint32N(2)
					}
					clear(want[c.Sector*512:][:c.Sectors*512])
				}
				if err := q.Erase(typ, ranges...); err != nil {
					t.Fatalf("%d ranges of type %d: %v", len(ranges), typ, err)
				}
			}
			holds(t, q, want)
			if s := d.Stats()[0]; s.Discards+s.WriteZeroes > rounds || s.Discards == 0 || s.WriteZeroes == 0 || s.Failed+s.Invalid != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// TestManyErasesInFlight fills the ring with requests of many ranges.
func TestManyErasesInFlight(t *testing.T) {
	dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{Async: true, Order: blockdevtest.Shuffled, Seed: 3})
	_, socket := export(t, dev, blk.Options{})
	q := open(t, socket, frontend.Options{QueueSize: 64}).Queue(0)
	want := fill(t, q, capacity)
	for i := range 64 {
		r := request(t, q, frontend.TypeDiscard, 0, 16*frontend.RangeSize)
		data := r.Data[:0]
		for j := range 16 {
			sector := (i*16 + j) * 3
			data = frontend.Range{Sector: uint64(sector), Sectors: 2}.Append(data)
			clear(want[sector*512:][:1024])
		}
		if err := q.Submit(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Notify(); err != nil {
		t.Fatal(err)
	}
	done := make([]*frontend.Request, 64)
	for n := 0; n < 64; {
		k, err := q.Wait(done)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range done[:k] {
			if err := r.Err(); err != nil || r.Written != 1 {
				t.Fatalf("%v, %d bytes", err, r.Written)
			}
		}
		n += k
	}
	holds(t, q, want)
}

// TestEraseAnswers: a request that is not in order in all of its ranges changes
// nothing.
func TestEraseAnswers(t *testing.T) {
	const (
		ok     = frontend.StatusOK
		ioErr  = frontend.StatusIOErr
		unsupp = frontend.StatusUnsupp
		end    = capacity / 512
	)
	good := frontend.Range{Sector: 8, Sectors: 8}
	many := func(n int) []frontend.Range { return slices.Repeat([]frontend.Range{good}, n) }
	for _, c := range []struct {
		name             string
		ranges           []frontend.Range
		extra            int // bytes behind them
		discard, zeroing byte
	}{
		{"one range", many(1), 0, ok, ok},
		{"as many ranges as announced", many(16), 0, ok, ok},
		{"a range too many", many(17), 0, ioErr, ioErr},
		{"far too many ranges", many(4000), 0, ioErr, ioErr},
		{"no range", nil, 0, ioErr, ioErr},
		{"half a range", nil, 8, ioErr, ioErr},
		{"a range and a half", many(1), 8, ioErr, ioErr},
		{"a range of no sectors", []frontend.Range{{Sector: 8}}, 0, ok, ok},
		{"a range of no sectors at the end", []frontend.Range{{Sector: end}}, 0, ok, ok},
		{"a range of no sectors behind the end", []frontend.Range{{Sector: end + 1}}, 0, ioErr, ioErr},
		{"the whole disk", []frontend.Range{{Sectors: end}}, 0, ok, ok},
		{"past the end", []frontend.Range{good, {Sector: end - 1, Sectors: 2}}, 0, ioErr, ioErr},
		{"far away", []frontend.Range{good, {Sector: 1<<64 - 1, Sectors: 1}}, 0, ioErr, ioErr},
		{"where the offset wraps", []frontend.Range{good, {Sector: 1 << 55, Sectors: 8}}, 0, ioErr, ioErr},
		{"a range too long", []frontend.Range{good, {Sectors: 1<<22 + 8}}, 0, ioErr, ioErr},
		{"all sectors there can be", []frontend.Range{good, {Sectors: 1<<32 - 1}}, 0, ioErr, ioErr},
		{"unmap", []frontend.Range{{Sector: 8, Sectors: 8, Flags: frontend.FlagUnmap}}, 0, unsupp, ok},
		{"unmap in the last range", append(many(2), frontend.Range{Sector: 8, Sectors: 8, Flags: frontend.FlagUnmap}), 0, unsupp, ok},
		{"an unknown flag", []frontend.Range{good, {Sector: 8, Sectors: 8, Flags: 2}}, 0, unsupp, unsupp},
		{"all flags", []frontend.Range{{Sector: 8, Sectors: 8, Flags: 1<<32 - 1}}, 0, unsupp, unsupp},
		{"an unknown flag, far away", []frontend.Range{{Sector: 1 << 60, Sectors: 8, Flags: 4}}, 0, unsupp, unsupp},
	} {
		for typ, want := range map[uint32]byte{frontend.TypeDiscard: c.discard, frontend.TypeWriteZeroes: c.zeroing} {
			t.Run(c.name, func(t *testing.T) {
				dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{})
				_, socket := export(t, dev, blk.Options{})
				q := open(t, socket, frontend.Options{}).Queue(0)
				before := fill(t, q, 64<<10)
				r := request(t, q, typ, 0, len(c.ranges)*frontend.RangeSize+c.extra)
				data := r.Data[:0]
				for _, g := range c.ranges {
					data = g.Append(data)
				}
				if err := q.Do(r); errors.Is(err, frontend.ErrBackend) {
					t.Fatal(err)
				}
				if r.Status != want || r.Written != 1 {
					t.Errorf("type %d: status %d, %d bytes, want status %d", typ, r.Status, r.Written, want)
				}
				if want != ok {
					holds(t, q, before)
				}
			})
		}
	}
}

func TestEraseOnLargeBlocks(t *testing.T) {
	dev := newFault(t, memory.Options{LogicalBlockSize: 4096, PhysicalBlockSize: 16384}, blockdevtest.FaultOptions{})
	_, socket := export(t, dev, blk.Options{})
	disk := open(t, socket, frontend.Options{})
	if c := disk.Config; c.DiscardAlignment != 32 || c.MaxDiscardSeg != 16 || c.MaxDiscardSectors != 1<<22 ||
		c.MaxWriteZeroesSeg != 16 || c.MaxWriteZeroes != 1<<16 || c.WriteZeroesMayUnmap != 1 {
		t.Errorf("config %+v", c)
	}
	for _, typ := range []uint32{frontend.TypeDiscard, frontend.TypeWriteZeroes} {
		for r, want := range map[frontend.Range]error{
			{Sector: 8, Sectors: 8}: nil, {Sector: 8, Sectors: 4}: frontend.ErrIO, {Sector: 4, Sectors: 8}: frontend.ErrIO, {Sector: 1, Sectors: 0}: frontend.ErrIO,
		} {
			if err := disk.Queue(0).Erase(typ, r); !errors.Is(err, want) {
				t.Errorf("type %d, %+v: %v", typ, r, err)
			}
		}
	}
}

// TestEraseThatWasNotAgreedOn: what the driver did not accept, or was not offered, is
// a type like any unknown one.
func TestEraseThatWasNotAgreedOn(t *testing.T) {
	const both = 1<<frontend.FeatureDiscard | 1<<frontend.FeatureWriteZeroes
	for name, c := range map[string]struct {
		lower memory.Options
		opts  blk.Options
		front frontend.Options
	}{
		"not accepted": {front: frontend.Options{Without: both}},
		"not there":    {lower: memory.Options{NoDiscard: true, NoWriteZeroes: true}},
		"read-only":    {opts: blk.Options{ReadOnly: true}},
	} {
		t.Run(name, func(t *testing.T) {
			dev := newFault(t, c.lower, blockdevtest.FaultOptions{})
			_, socket := export(t, dev, c.opts)
			disk := open(t, socket, c.front)
			if g := disk.Config; name != "not accepted" && (g.MaxDiscardSeg != 0 || g.MaxWriteZeroesSeg != 0 || g.MaxDiscardSectors != 0 || g.MaxWriteZeroes != 0) {
				t.Errorf("config %+v", g)
			}
			for _, typ := range []uint32{frontend.TypeDiscard, frontend.TypeWriteZeroes} {
				if err := disk.Queue(0).Erase(typ, frontend.Range{Sectors: 8}); !errors.Is(err, frontend.ErrUnsupported) {
					t.Errorf("type %d: %v", typ, err)
				}
			}
		})
	}
}

// TestEraseFails: the range that fails ends the request with one answer, and the
// ones behind it are not begun.
func TestEraseFails(t *testing.T) {
	dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{})
	d, socket := export(t, dev, blk.Options{})
	q := open(t, socket, frontend.Options{}).Queue(0)
	want := fill(t, q, 4096)
	clear(want[:512])
	dev.FailNth(2, unix.EIO)
	err := q.Erase(frontend.TypeDiscard, frontend.Range{Sectors: 1}, frontend.Range{Sector: 2, Sectors: 1}, frontend.Range{Sector: 4, Sectors: 1})
	if !errors.Is(err, frontend.ErrIO) {
		t.Errorf("got %v", err)
	}
	holds(t, q, want)
	if s := d.Stats()[0]; s.Failed != 1 || s.Discards != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestEraseRequests: what the block device is asked for has the driver's wishes in it.
func TestEraseRequests(t *testing.T) {
	dev := newFault(t, memory.Options{}, blockdevtest.FaultOptions{})
	_, socket := export(t, dev, blk.Options{})
	disk := open(t, socket, frontend.Options{})
	var mu sync.Mutex
	var got []blockdev.Request
	dev.OnSubmit(func(r *blockdev.Request) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, blockdev.Request{Op: r.Op, FUA: r.FUA, MayUnmap: r.MayUnmap, Offset: r.Offset, Length: r.Length})
		return nil
	})
	for _, writeCache := range []bool{true, false} {
		if err := disk.SetWriteCache(writeCache); err != nil {
			t.Fatal(err)
		}
		q := disk.Queue(0)
		err := errors.Join(
			q.Erase(frontend.TypeWriteZeroes, frontend.Range{Sector: 1, Sectors: 2, Flags: frontend.FlagUnmap}, frontend.Range{}, frontend.Range{Sector: 9, Sectors: 1}),
			q.Erase(frontend.TypeDiscard, frontend.Range{Sector: 3, Sectors: 1}))
		if err != nil {
			t.Fatal(err)
		}
		want := []blockdev.Request{
			{Op: blockdev.WriteZeroes, FUA: !writeCache, MayUnmap: true, Offset: 512, Length: 1024},
			{Op: blockdev.WriteZeroes, FUA: !writeCache, Offset: 9 * 512, Length: 512},
			{Op: blockdev.Discard, FUA: !writeCache, Offset: 3 * 512, Length: 512},
		}
		if !writeCache { // which is empty before it is off
			want = append([]blockdev.Request{{Op: blockdev.Flush}}, want...)
		}
		mu.Lock() // shared memory orders the two sides, which the race detector does not know
		seen := got
		got = nil
		mu.Unlock()
		if !slices.EqualFunc(seen, want, func(a, b blockdev.Request) bool {
			return a.Op == b.Op && a.FUA == b.FUA && a.MayUnmap == b.MayUnmap && a.Offset == b.Offset && a.Length == b.Length
		}) {
			t.Errorf("write cache %v: got %+v", writeCache, seen)
		}
	}
}
