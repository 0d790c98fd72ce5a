package vhost

import (
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/vhost/frontend"
	"sealblk/vhost/inflight"
	"sealblk/vhost/memory"
	"sealblk/vhost/virtqueue"
)

// deathRing is a driver's ring, its memory and its in-flight region: what outlives a
// back-end. The driver numbers its requests; the device finds the number in them.
type deathRing struct {
	t      *testing.T
	mem    *frontend.Memory
	table  *memory.Table
	ring   *frontend.Ring
	region *inflight.Region
	fuse   int // stores until the worker dies
	rng    *rand.Rand

	numbers  []uint64 // by head
	next     uint64
	returned map[uint64]bool
}

const deathSize = 8

func newDeathRing(t *testing.T, seed uint64, start uint16) *deathRing {
	t.Helper()
	d := &deathRing{t: t, rng: rand.New(rand.NewPCG(seed, 1)), returned: map[uint64]bool{}, numbers: make([]uint64, deathSize)}
	d.mem = try(frontend.NewMemory(frontend.RegionLayout{Size: 1 << 20}))(t)
	d.ring = try(frontend.NewRing(d.mem, frontend.RingConfig{Size: deathSize, Indirect: 2}))(t)
	d.ring.Reset(start)
	r := d.mem.Regions[0]
	fd := try(unix.Dup(r.FD))(t)
	d.table = try(memory.New([]memory.Region{{GuestAddr: r.GuestAddr, Size: r.Size, UserAddr: r.UserAddr}}, []int{fd}))(t)
	desc, fd, err := inflight.Create(1, deathSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	d.region = try(inflight.Open(desc, fd))(t)
	d.region.OnStore(func() {
		if d.fuse--; d.fuse == 0 {
			panic(death{})
		}
	})
	return d
}

func (d *deathRing) close() {
	d.region.Close()
	d.table.Close()
	d.mem.Close()
}

func try[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

type death struct{}

// add makes up to n requests available.
func (d *deathRing) add(n int) {
	for range min(n, d.ring.Free()) {
		d.next++
		slot := try(d.mem.Alloc(16, 16))(d.t)
		binary.LittleEndian.PutUint64(slot.Bytes, d.next)
		head := try(d.ring.Add([]frontend.Segment{slot.Part(0, 8).Segment(), slot.Part(8, 1).Segment()}, 1))(d.t)
		d.numbers[head] = d.next
	}
	d.ring.Publish()
}

// poll takes what was returned, which nothing is twice.
func (d *deathRing) poll() {
	var used [deathSize]frontend.Used
	n := try(d.ring.Poll(used[:]))(d.t)
	for _, u := range used[:n] {
		number := d.numbers[u.Head]
		if d.returned[number] {
			d.t.Fatalf("request %d was returned twice", number)
		}
		d.returned[number] = true
	}
}

// open lists the requests that the driver waits for, in the order in which it made
// them.
func (d *deathRing) open() (numbers []uint64) {
	for n := uint64(1); n <= d.next; n++ {
		if !d.returned[n] {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// deathDevice completes in any order, as often as it is polled.
type deathDevice struct {
	Device
	rng       *rand.Rand
	got       []*Request
	submitted []uint64
}

func (v *deathDevice) OpenQueue(QueueConfig) (Queue, error) { return v, nil }
func (v *deathDevice) Push()                                {}
func (v *deathDevice) WaitFD() int                          { return -1 }
func (v *deathDevice) Close() error                         { return nil }

func (v *deathDevice) Submit(r *Request) error {
	v.got = append(v.got, r)
	v.submitted = append(v.submitted, binary.LittleEndian.Uint64(r.Readable[0]))
	return nil
}

// Poll returns each request with even odds.
func (v *deathDevice) Poll(done []*Request) (n int) {
	v.rng.Shuffle(len(v.got), func(i, j int) { v.got[i], v.got[j] = v.got[j], v.got[i] })
	for len(v.got) > 0 && n < len(done) && v.rng.IntN(2) == 0 {
		done[n], v.got = v.got[0], v.got[1:]
		done[n].Written = 1
		n++
	}
	return n
}

// worker is the next back-end's, not yet open.
func (d *deathRing) worker() (*worker, *deathDevice) {
	dev := &deathDevice{rng: d.rng}
	return &worker{workerConfig: workerConfig{
		ring: virtqueue.Config{
			Size: deathSize, Desc: d.ring.Desc.Bytes, Avail: d.ring.Avail.Bytes[:virtqueue.AvailSize(deathSize)],
			Used: d.ring.Used.Bytes[:virtqueue.UsedSize(deathSize)], Indirect: true,
		},
		queue: QueueConfig{Size: deathSize}, table: d.table, region: d.region, device: dev,
		log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}}, dev
}

// live lets a worker serve a few rounds, and tells whether it died over it. The driver
// goes on with what it got.
func (d *deathRing) live(fuse, rounds int) (died bool, dev *deathDevice) {
	w, dev := d.worker()
	d.fuse = fuse
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(death); !ok {
				panic(p)
			}
			died = true
		}
		d.poll()
	}()
	if err := w.open(); err != nil {
		d.t.Fatal(err)
	}
	for range rounds {
		d.add(1 + d.rng.IntN(3))
		w.take()
		w.complete()
		d.poll()
	}
	d.finish(w, dev)
	return false, dev
}

func (d *deathRing) finish(w *worker, dev *deathDevice) {
	for len(d.open()) > 0 {
		if w.take()+w.complete() == 0 && len(dev.got) == 0 {
			d.t.Fatalf("requests %v are lost", d.open())
		}
		d.poll()
	}
}

// TestWorkerDeathAfterEveryStore lets a worker, and the one after it, die after each
// store to the in-flight region. The next one begins with exactly the requests that the
// driver waits for, in the driver's order, and the driver gets each once.
func TestWorkerDeathAfterEveryStore(t *testing.T) {
	for seed := range uint64(4) {
		start := []uint16{0, 65533}[seed/2]
		for first := 1; ; first++ {
			second := 1
			for ; dieTwice(t, seed, start, first, second); second += 1 + first%3 {
			}
			if second == 1 {
				break
			}
		}
	}
}

// dieTwice reports whether both died.
func dieTwice(t *testing.T, seed uint64, start uint16, first, second int) bool {
	d := newDeathRing(t, seed, start)
	defer d.close()
	if died, _ := d.live(first, 4); !died {
		return false
	}
	var waiting []uint64
	again := true
	for _, fuse := range []int{second, 0} {
		waiting = d.open()
		died, dev := d.live(fuse, 2)
		if n := min(len(dev.submitted), len(waiting)); !slices.Equal(dev.submitted[:n], waiting[:n]) || !died && n < len(waiting) {
			t.Fatalf("seed %d, deaths after stores %d and %d: the next worker began with %v, the driver waits for %v", seed, first, second, dev.submitted, waiting)
		}
		if !died && fuse != 0 {
			again = false
			break
		}
	}
	if left := d.open(); len(left) > 0 {
		t.Fatalf("requests %v are lost", left)
	}
	return again
}
