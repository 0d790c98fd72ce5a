package frontend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealblk/vhost/virtqueue"

	"pgregory.net/rapid"
)

// newSlotsQueue is a queue without a connection: the test is the back-end.
func newSlotsQueue(t testing.TB, rc RingConfig, o Options) *Queue {
	t.Helper()
	m := newMemory(t, RegionLayout{Size: 16 << 20})
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	q, err := newQueue(0, m, rc, &o, -1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.close() })
	return q
}

func newSlots(t testing.TB, q *Queue, c SlotsConfig) *Slots {
	t.Helper()
	s, err := NewSlots(q, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// want is what the device must see of a slot.
type want struct {
	typ    uint32
	sector uint64
}

// Any order of putting and returning slots: the device sees each chain as it was put,
// with the data in the direction of its type, and each slot comes back once.
func TestSlotsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const count, size = 5, 4096
		indirect := rapid.Bool().Draw(rt, "indirect")
		q := newSlotsQueue(t, RingConfig{Size: 16}, Options{})
		s := newSlots(t, q, SlotsConfig{Count: count, Size: size, Indirect: indirect})
		d := &device{m: q.memory, r: q.Ring}
		put, popped := map[int]want{}, map[int]uint16{}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				i := rapid.IntRange(0, count-1).Draw(rt, "slot")
				if _, busy := put[i]; busy {
					return
				}
				w := want{rapid.SampledFrom([]uint32{TypeIn, TypeOut}).Draw(rt, "type"), rapid.Uint64().Draw(rt, "sector")}
				s.Put(i, w.typ, w.sector)
				put[i] = w
				if err := s.Submit(); err != nil {
					rt.Fatal(err)
				}
			},
			"pop": func(rt *rapid.T) {
				head, out, in, ok := d.pop()
				if !ok {
					return
				}
				i := int(s.byHead[head])
				checkChain(rt, s, i, put[i], out, in)
				popped[i] = head
			},
			"return": func(rt *rapid.T) {
				for i, head := range popped {
					at, _ := d.m.At(s.slots[i].data.GuestAddr)
					at[0]++ // the device may write the data
					*s.slots[i].status = byte(i % 3)
					d.push(uint32(head), 1)
					var done [2]Completion
					if n, err := s.Poll(done[:]); n != 1 || err != nil || done[0] != (Completion{i, byte(i % 3)}) {
						rt.Fatalf("polled %d %v, %v", n, done[0], err)
					}
					delete(put, i)
					delete(popped, i)
					return
				}
			},
			"": func(rt *rapid.T) {
				if s.InFlight() != len(put) {
					rt.Fatalf("%d in flight, want %d", s.InFlight(), len(put))
				}
			},
		})
	})
}

func checkChain(t *rapid.T, s *Slots, i int, w want, out, in []Segment) {
	t.Helper()
	data := s.slots[i].data.Segment()
	line := Segment{Addr: out[0].Addr, Len: headerSize}
	status := Segment{Addr: line.Addr + headerSize, Len: statusSize}
	wantOut, wantIn := []Segment{line}, []Segment{data, status}
	if w.typ == TypeOut {
		wantOut, wantIn = []Segment{line, data}, []Segment{status}
	}
	if !slices.Equal(out, wantOut) || !slices.Equal(in, wantIn) {
		t.Fatalf("slot %d: chain %v %v, want %v %v", i, out, in, wantOut, wantIn)
	}
	var header [headerSize]byte
	if err := s.queue.memory.Read(header[:], line.Addr); err != nil {
		t.Fatal(err)
	}
	var wantHeader [headerSize]byte
	putHeader(wantHeader[:], w.typ, w.sector)
	if !bytes.Equal(header[:], wantHeader[:]) {
		t.Fatalf("slot %d: header %x, want %x", i, header, wantHeader)
	}
}

func TestSlotsDoNotTrustTheDevice(t *testing.T) {
	for name, breach := range map[string]func(*device){
		"chain that was not put":    func(d *device) { d.push(3, 1) },
		"middle of a chain":         func(d *device) { d.push(1, 1) },
		"chain outside the ring":    func(d *device) { d.push(16, 1) },
		"more chains than were put": func(d *device) { d.push(0, 1); d.push(3, 1); d.push(6, 1) },
		"chain twice":               func(d *device) { d.push(0, 1); d.push(0, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			q := newSlotsQueue(t, RingConfig{Size: 16}, Options{})
			s := newSlots(t, q, SlotsConfig{Count: 5, Size: 512})
			s.Put(0, TypeIn, 0)
			s.Put(2, TypeIn, 0)
			if err := s.Submit(); err != nil {
				t.Fatal(err)
			}
			breach(&device{m: q.memory, r: q.Ring})
			if _, err := s.Poll(make([]Completion, 8)); !errors.Is(err, ErrBackend) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestSlotsKickOnlyWhenAsked(t *testing.T) {
	for _, eventIdx := range []bool{false, true} {
		q := newSlotsQueue(t, RingConfig{Size: 16, EventIdx: eventIdx}, Options{})
		s := newSlots(t, q, SlotsConfig{Count: 5, Size: 512})
		ask := func(on bool, index uint16) {
			if eventIdx {
				if !on {
					index--
				}
				putUint16(q.Ring.Used.Bytes, virtqueue.AvailEventOffset(16), index)
				return
			}
			flags := uint16(virtqueue.UsedNoNotify)
			if on {
				flags = 0
			}
			putUint16(q.Ring.Used.Bytes, virtqueue.UsedFlagsOffset, flags)
		}
		for i, asked := range []bool{true, false, true, false} {
			ask(asked, uint16(i))
			s.Put(i, TypeIn, 0)
			if err := s.Submit(); err != nil {
				t.Fatal(err)
			}
			if kicked, err := q.Kick.Clear(); err != nil || kicked != asked {
				t.Fatalf("event idx %v, request %d: kicked %v, %v; want %v", eventIdx, i, kicked, err, asked)
			}
		}
		if q.Counters.Kicks != 2 || q.Counters.Submitted != 4 {
			t.Fatalf("counted %+v", q.Counters)
		}
	}
}

func TestSlotsWait(t *testing.T) {
	for _, polling := range []bool{false, true} {
		q := newSlotsQueue(t, RingConfig{Size: 4, EventIdx: true}, Options{Polling: polling, Timeout: 10 * time.Second})
		s := newSlots(t, q, SlotsConfig{Count: 1, Size: 512, PollsPerYield: 8})
		s.Put(0, TypeIn, 0)
		if err := s.Submit(); err != nil {
			t.Fatal(err)
		}
		var backend sync.WaitGroup
		backend.Go(func() {
			d := &device{m: q.memory, r: q.Ring}
			head, _, _, _ := d.pop()
			*s.slots[0].status = StatusIOErr
			d.push(uint32(head), 1)
			q.Call.Signal()
		})
		var done [1]Completion
		if err := s.Wait(); err != nil {
			t.Fatalf("polling %v: %v", polling, err)
		}
		if n, err := s.Poll(done[:]); n != 1 || err != nil || !errors.Is(done[0].Err(), ErrIO) {
			t.Fatalf("polling %v: got %d %v, %v", polling, n, done[0], err)
		}
		backend.Wait()
	}
}

func TestSlotsTimeout(t *testing.T) {
	for _, polling := range []bool{false, true} {
		q := newSlotsQueue(t, RingConfig{Size: 4}, Options{Polling: polling, Timeout: time.Millisecond})
		s := newSlots(t, q, SlotsConfig{Count: 1, Size: 512})
		s.Put(0, TypeIn, 0)
		if err := s.Wait(); !errors.Is(err, ErrTimeout) {
			t.Fatalf("polling %v: got %v", polling, err)
		}
	}
}

func TestSlotsRefuseWhatDoesNotFit(t *testing.T) {
	q := newSlotsQueue(t, RingConfig{Size: 8}, Options{})
	for _, c := range []SlotsConfig{{}, {Count: 1}, {Size: 1}, {Count: 3, Size: 512}, {Count: 9, Size: 512, Indirect: true}} {
		if _, err := NewSlots(q, c); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
	if _, err := NewSlots(q, SlotsConfig{Count: 2, Size: 32 << 20}); !errors.Is(err, ErrNoMemory) {
		t.Errorf("got %v", err)
	}
}

// nothing is a back-end that does nothing: it returns what comes, in batches.
func nothing(q *Queue, s *Slots, stop *atomic.Bool) {
	r := q.Ring
	var avail, used uint16
	for !stop.Load() {
		shown := uint16(loadWord(r.Avail.Bytes, 0) >> 16)
		if shown == avail {
			continue
		}
		for ; avail != shown; avail++ {
			head := getUint16(r.Avail.Bytes, virtqueue.AvailRingOffset+2*int(avail&r.mask))
			*s.slots[s.byHead[head]].status = StatusOK
			at := virtqueue.UsedRingOffset + virtqueue.UsedElemSize*int(used&r.mask)
			binary.LittleEndian.PutUint64(r.Used.Bytes[at:], uint64(head)|1<<32)
			used++
		}
		storeWord(r.Used.Bytes, 0, uint32(used)<<16)
	}
}

// BenchmarkSlots is the front-end alone: the other side of the ring does nothing, on
// another thread.
func BenchmarkSlots(b *testing.B) {
	for _, depth := range []int{1, 32} {
		for _, indirect := range []bool{false, true} {
			b.Run(fmt.Sprintf("iodepth=%d/indirect=%v", depth, indirect), func(b *testing.B) { benchSlots(b, depth, indirect) })
		}
	}
}

func benchSlots(b *testing.B, depth int, indirect bool) {
	q := newSlotsQueue(b, RingConfig{Size: 128}, Options{Polling: true})
	s := newSlots(b, q, SlotsConfig{Count: depth, Size: 4096, Indirect: indirect})
	putUint16(q.Ring.Used.Bytes, virtqueue.UsedFlagsOffset, virtqueue.UsedNoNotify)
	var stop atomic.Bool
	exited := make(chan struct{})
	go func() { runtime.LockOSThread(); nothing(q, s, &stop); close(exited) }()
	defer func() { stop.Store(true); <-exited }()
	done := make([]Completion, depth)
	for i := range depth {
		s.Put(i, TypeIn, uint64(i))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; {
		if err := s.Submit(); err != nil {
			b.Fatal(err)
		}
		if err := s.Wait(); err != nil {
			b.Fatal(err)
		}
		n, err := s.Poll(done)
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range done[:n] {
			s.Put(c.Slot, TypeIn, uint64(left))
		}
		left -= n
	}
}
