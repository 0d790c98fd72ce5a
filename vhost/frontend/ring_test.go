package frontend

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"sealblk/vhost/virtqueue"

	"pgregory.net/rapid"
)

func newMemory(t testing.TB, layout ...RegionLayout) *Memory {
	t.Helper()
	m, err := NewMemory(layout...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// device is the other side of a ring, as simple as it can be: it believes all.
type device struct {
	m           *Memory
	r           *Ring
	avail, used uint16
}

// pop takes the next chain: its head and its segments, readable first.
func (d *device) pop() (head uint16, out, in []Segment, ok bool) {
	if uint16(loadWord(d.r.Avail.Bytes, 0)>>16) == d.avail {
		return 0, nil, nil, false
	}
	head = getUint16(d.r.Avail.Bytes, virtqueue.AvailRingOffset+2*int(d.avail&d.r.mask))
	d.avail++
	table, at := d.r.Desc.Bytes, int(head)
	for {
		desc := virtqueue.DecodeDesc((*[virtqueue.DescSize]byte)(table[at*virtqueue.DescSize:]))
		switch {
		case desc.Flags&virtqueue.DescIndirect != 0:
			b, err := d.m.At(desc.Addr)
			if err != nil {
				panic(err)
			}
			table, at = b[:desc.Len], 0
			continue
		case desc.Flags&virtqueue.DescWrite != 0:
			in = append(in, Segment{desc.Addr, desc.Len})
		default:
			out = append(out, Segment{desc.Addr, desc.Len})
		}
		if desc.Flags&virtqueue.DescNext == 0 {
			return head, out, in, true
		}
		at = int(desc.Next)
	}
}

func (d *device) push(id, n uint32) {
	at := virtqueue.UsedRingOffset + virtqueue.UsedElemSize*int(d.used&d.r.mask)
	binary.LittleEndian.PutUint32(d.r.Used.Bytes[at:], id)
	binary.LittleEndian.PutUint32(d.r.Used.Bytes[at+4:], n)
	d.used++
	storeWord(d.r.Used.Bytes, 0, uint32(d.used)<<16)
}

// Any order of adding and returning chains: each comes back once, with its
// segments seen by the device as they were given, and no descriptor is lost.
func TestRingModel(t *testing.T) {
	m := newMemory(t, RegionLayout{Size: 1 << 20})
	rapid.Check(t, func(t *rapid.T) {
		m.Reset()
		size := 1 << rapid.IntRange(0, 5).Draw(t, "log size")
		r, err := NewRing(m, RingConfig{Size: size, Indirect: rapid.SampledFrom([]int{0, 4, 40}).Draw(t, "indirect")})
		if err != nil {
			t.Fatal(err)
		}
		start := rapid.Uint16().Draw(t, "start")
		r.Reset(start)
		d := &device{m: m, r: r, avail: start, used: start}
		added := map[uint16][]Segment{}
		popped := []uint16{}
		serial := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				n := rapid.IntRange(1, 6).Draw(t, "segments")
				segments := make([]Segment, n)
				for i := range segments {
					serial++
					segments[i] = Segment{Addr: serial << 20, Len: uint32(serial)}
				}
				head, err := r.Add(segments, rapid.IntRange(0, n).Draw(t, "readable"))
				if errors.Is(err, ErrRingFull) {
					return
				}
				if _, taken := added[head]; taken {
					t.Fatalf("chain %d was given twice", head)
				}
				added[head] = segments
				r.Publish()
			},
			"pop": func(t *rapid.T) {
				head, out, in, ok := d.pop()
				if !ok {
					return
				}
				if got := append(out, in...); !slices.Equal(got, added[head]) {
					t.Fatalf("chain %d: got %v, want %v", head, got, added[head])
				}
				popped = append(popped, head)
			},
			"return": func(t *rapid.T) {
				if len(popped) == 0 {
					return
				}
				i := rapid.IntRange(0, len(popped)-1).Draw(t, "which")
				head := popped[i]
				popped = slices.Delete(popped, i, i+1)
				d.push(uint32(head), uint32(head)+1)
				var done [2]Used
				if n, err := r.Poll(done[:]); n != 1 || err != nil || done[0] != (Used{head, uint32(head) + 1}) {
					t.Fatalf("polled %d %v, %v", n, done[0], err)
				}
				delete(added, head)
			},
			"": func(t *rapid.T) {
				if len(added) == 0 && r.Free() != size {
					t.Fatalf("%d of %d descriptors are free", r.Free(), size)
				}
			},
		})
	})
}

// What a back-end may not put into the used ring.
func TestUsedRingIsChecked(t *testing.T) {
	m := newMemory(t, RegionLayout{Size: 1 << 20})
	for name, spoil := range map[string]func(d *device, head uint16){
		"a head that was not available": func(d *device, head uint16) { d.push(uint32(head)+1, 0) },
		"a head outside the ring":       func(d *device, _ uint16) { d.push(8, 0) },
		"a head of 32 bits":             func(d *device, head uint16) { d.push(1<<16|uint32(head), 0) },
		"an index that leaps":           func(d *device, _ uint16) { storeWord(d.r.Used.Bytes, 0, 9<<16) },
		"the same head twice": func(d *device, head uint16) {
			d.push(uint32(head), 0)
			d.push(uint32(head), 0)
		},
	} {
		m.Reset()
		r, err := NewRing(m, RingConfig{Size: 8})
		if err != nil {
			t.Fatal(err)
		}
		head, err := r.Add([]Segment{{Addr: 0, Len: 1}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		r.Publish()
		spoil(&device{m: m, r: r}, head)
		var done [8]Used
		if _, err := r.Poll(done[:]); !errors.Is(err, ErrBackend) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNotifications(t *testing.T) {
	m := newMemory(t, RegionLayout{Size: 1 << 20})
	for _, eventIdx := range []bool{false, true} {
		r, err := NewRing(m, RingConfig{Size: 8, EventIdx: eventIdx})
		if err != nil {
			t.Fatal(err)
		}
		d := &device{m: m, r: r}
		want := func(what string, got, want bool) {
			t.Helper()
			if got != want {
				t.Errorf("event idx %v, %s: got %v", eventIdx, what, got)
			}
		}
		add := func() {
			if _, err := r.Add([]Segment{{Len: 1}}, 0); err != nil {
				t.Fatal(err)
			}
			r.Publish()
		}
		want("nothing new", r.NeedKick(), false)
		add()
		want("first request", r.NeedKick(), true)
		want("nothing since", r.NeedKick(), false)
		if eventIdx {
			putUint16(r.Used.Bytes, virtqueue.AvailEventOffset(8), 5)
		} else {
			putUint16(r.Used.Bytes, virtqueue.UsedFlagsOffset, virtqueue.UsedNoNotify)
		}
		add()
		want("a device that polls", r.NeedKick(), false)
		want("call for what is to come", r.RequestCall(), false)
		head, _, _, _ := d.pop()
		d.push(uint32(head), 1)
		want("call for what is there", r.RequestCall(), true)
	}
}

func TestAddRefusesWhatDoesNotFit(t *testing.T) {
	m := newMemory(t, RegionLayout{Size: 1 << 20})
	r, err := NewRing(m, RingConfig{Size: 4})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 5} {
		if _, err := r.Add(make([]Segment, n), 0); !errors.Is(err, ErrRingFull) {
			t.Errorf("%d segments: %v", n, err)
		}
	}
	if r.Free() != 4 || r.AvailIndex() != 0 {
		t.Errorf("a refused chain left %d free, index %d", r.Free(), r.AvailIndex())
	}
	for _, c := range []RingConfig{{}, {Size: 3}, {Size: 1 << 16}, {Size: 4, Indirect: -1}, {Size: 1 << 15}} {
		if _, err := NewRing(newMemory(t, RegionLayout{Size: 4096}), c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

// A framing changes where descriptors begin and end, not the bytes.
func TestFramingsKeepTheBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for name, f := range map[string]Framing{
		"parts": FrameParts, "merged": FrameMerged, "at most 7": FrameAtMost(7), "random": FrameRandom(rng, 5),
		"empty": FrameWithEmpty(rng, FrameParts), "random, empty": FrameWithEmpty(rng, FrameRandom(rng, 9)),
	} {
		for range 200 {
			var ps []Segment
			at := uint64(1000)
			for range 1 + rng.IntN(4) {
				at += uint64(rng.IntN(2) * 100)
				n := rng.Uint32N(60)
				ps = append(ps, Segment{at, n})
				at += uint64(n)
			}
			first := []Segment{{1, 999}}
			got := f(slices.Clone(first)[:0], ps)
			if want, got := addresses(ps), addresses(got); !slices.Equal(want, got) {
				t.Fatalf("%s: %v became %v", name, ps, got)
			}
		}
	}
}

func addresses(ss []Segment) []uint64 {
	var all []uint64
	for _, s := range ss {
		for i := range uint64(s.Len) {
			all = append(all, s.Addr+i)
		}
	}
	return all
}
