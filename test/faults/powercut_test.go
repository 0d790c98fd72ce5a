package faults

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/fault"
	"sealblk/blockdev/luks"
	"sealblk/blockdev/memory"
	"sealblk/vhost/frontend"
)

const (
	cutCapacity = 256 << 10 // in the beginning
	cutMost     = 384 << 10 // after all resizes
	cutGrowth   = 32 << 10
	headerBytes = 32 << 10 // both copies
	maxCuts     = 120
)

// headerFile is the medium's header area. What lies behind both copies is dropped.
type headerFile struct{ b []byte }

func (f headerFile) ReadAt(p []byte, off int64) (int, error) {
	if off < int64(len(f.b)) {
		if n := copy(p, f.b[off:]); n == len(p) {
			return n, nil
		}
	}
	return max(0, min(len(p), len(f.b)-int(off))), io.EOF
}

func (f headerFile) WriteAt(p []byte, off int64) (int, error) {
	if off < int64(len(f.b)) {
		copy(f.b[off:], p)
	}
	return len(p), nil
}

func (headerFile) Sync() error { return nil }

func newHeader(t failer, unit int) []byte {
	t.Helper()
	f := headerFile{make([]byte, headerBytes)}
	_, err := luks.Format(f, luks.Params{Token: luks.Token{
		KeyURI: "local:k", KeyVersion: "0", Context: map[string]string{"sealblk:disk": "l"}, WrappedKey: []byte{1},
		Disk: luks.Disk{ID: "d", Lineage: "l", Name: "n", Size: cutCapacity, SectorSize: unit, Role: "data", Serial: "s",
			Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	}}, key)
	must(t, err)
	return f.b
}

// update is a change of the header: the key version becomes its number, and the disk has
// that size from then on.
type update struct{ began, ended, size int64 }

// cut is a disk whose power is going to fail: a record of its data, of its header,
// and of what its guest did and was told, by one clock.
type cut struct {
	rt      *rapid.T
	unit    int64
	clock   fault.Clock
	data    *fault.Log
	header  *fault.Log
	told    *fault.Log
	length  *fault.Log // of the backing file: one sector, see grow
	busy    []bool
	through bool // the guest's writes are write-through

	capacity int64

	start   []byte // the header in the beginning
	file    luks.File
	current *luks.Header
	updates []update

	*stack
}

func newCut(rt *rapid.T, unit int, start []byte) (*cut, *fault.Device) {
	c := &cut{rt: rt, unit: int64(unit), start: start, busy: make([]bool, cutMost/unit), capacity: cutCapacity}
	c.data, c.told = fault.NewLog(&c.clock, c.unit), fault.NewLog(&c.clock, c.unit)
	c.header, c.length = fault.NewLog(&c.clock, 512), fault.NewLog(&c.clock, lengthSector)
	c.file = fault.File{Storage: headerFile{bytes.Clone(start)}, Log: c.header}
	var err error
	c.current, err = luks.Open(c.file)
	must(rt, err)
	dev := fault.New(cutMemory(rt, unit), fault.Options{Async: true, Order: fault.Shuffled, Seed: rapid.Uint64().Draw(rt, "seed")})
	faults := rapid.Bool().Draw(rt, "faults")
	if faults {
		dev.Add(fault.Rule{Probability: .1, Err: unix.EIO, Effect: fault.Torn})
	}
	c.stack = newStack(rt, fault.Record(dev, c.data, 0), unit)
	if rapid.Bool().Draw(rt, "write-through") {
		err := c.disk.SetWriteCache(false)
		if c.through = err == nil; !c.through && (!faults || !errors.Is(err, frontend.ErrRefused)) { // a cache that cannot be emptied stays on
			rt.Fatal(err)
		}
	}
	return c, dev
}

func cutMemory(t failer, unit int) *memory.Device {
	t.Helper()
	d, err := memory.New(cutCapacity, memory.Options{LogicalBlockSize: unit, MaxCapacity: cutMost})
	must(t, err)
	return d
}

func (c *cut) step() {
	switch kind := rapid.IntRange(0, 12).Draw(c.rt, "step"); {
	case kind < 6:
		c.change(frontend.TypeOut)
	case kind == 6:
		c.change(frontend.TypeDiscard)
	case kind == 7:
		c.change(frontend.TypeWriteZeroes)
	case kind < 10:
		s := c.told.Sync()
		c.submit(frontend.TypeFlush, 0, nil, 0, func(err error, _ []byte) { c.told.Synced(s, err) })
	case kind == 10:
		c.updateHeader(c.capacity)
	case kind == 11:
		c.grow()
	default:
		c.drain()
	}
	c.poll()
}

// change writes, or makes zeros, where nothing is in flight.
func (c *cut) change(typ uint32) {
	units := int(c.capacity / c.unit)
	first := rapid.IntRange(0, units-1).Draw(c.rt, "unit")
	n := rapid.IntRange(1, min(6, units-first)).Draw(c.rt, "units")
	for i := first; i < first+n; i++ {
		if c.busy[i] {
			return
		}
	}
	c.mark(first, n, true)
	offset, length := int64(first)*c.unit, int64(n)*c.unit
	var (
		data []byte
		w    *fault.Write
	)
	if typ == frontend.TypeOut {
		data = blockdevtest.Noise(rapid.Uint64().Draw(c.rt, "data"), length)
		w = c.told.Write(offset, data, c.through)
	} else {
		w = c.told.Zero(offset, length, c.through)
	}
	c.submit(typ, offset, data, length, func(err error, _ []byte) {
		c.told.Wrote(w, err)
		c.mark(first, n, false)
	})
}

func (c *cut) mark(first, n int, busy bool) {
	for i := first; i < first+n; i++ {
		c.busy[i] = busy
	}
}

// grow is a resize, while the guest's requests are in flight: in the order of
// disk.Catalogue.Resize, whose own test stops it after each step, and then the export is
// told, and the guest may use the new space.
func (c *cut) grow() {
	size := min(c.capacity+cutGrowth, cutMost)
	w := c.length.Write(0, binary.LittleEndian.AppendUint64(nil, uint64(size)), false)
	c.length.Wrote(w, nil)
	s := c.length.Sync()
	c.length.Synced(s, nil)
	c.updateHeader(size)
	must(c.rt, blockdev.Grow(c.crypt, size))
	c.capacity = size
}

// lengthSector is the sector of a log that holds a length and nothing else.
const lengthSector = 8

// least is the shortest that the backing file may be after a cut.
func (c *cut) least(at int64) int64 {
	least := int64(cutMost)
	versions := c.length.Versions(at)[0]
	if len(versions) == 0 {
		return cutCapacity
	}
	for _, v := range versions {
		if v.Base {
			return cutCapacity
		}
		least = min(least, int64(binary.LittleEndian.Uint64(v.Data)))
	}
	return least
}

// updateHeader is a re-wrap or a resize, while the guest's requests are in flight.
func (c *cut) updateHeader(size int64) {
	u := update{began: c.clock.Now(), size: size}
	version := strconv.Itoa(len(c.updates) + 1)
	must(c.rt, luks.Update(c.file, c.current, func(h *luks.Header) error {
		t, err := h.Token()
		if err != nil {
			return err
		}
		t.KeyVersion = version
		return errors.Join(h.SetToken(t), h.Resize(size))
	}))
	u.ended = c.clock.Now()
	c.updates = append(c.updates, u)
}

// ways are what of the unflushed may have reached the medium.
var ways = []struct {
	name string
	pick func(rng *rand.Rand, at int64) func(int64, []fault.Version) int
}{
	{"nothing", func(*rand.Rand, int64) func(int64, []fault.Version) int {
		return func(int64, []fault.Version) int { return 0 }
	}},
	{"everything", func(*rand.Rand, int64) func(int64, []fault.Version) int {
		return func(_ int64, v []fault.Version) int { return len(v) - 1 }
	}},
	{"a prefix", func(rng *rand.Rand, at int64) func(int64, []fault.Version) int {
		end := rng.Int64N(at + 1)
		return func(_ int64, v []fault.Version) int {
			i := len(v) - 1
			for i > 0 && v[i].Submitted > end {
				i--
			}
			return i
		}
	}},
	{"any sectors", func(rng *rand.Rand, _ int64) func(int64, []fault.Version) int {
		return func(_ int64, v []fault.Version) int { return rng.IntN(len(v)) }
	}},
}

// TestPowerCut: after a cut at any moment, with any part of the unflushed, the header
// opens as the old or the new one, and each block of the disk holds what the guest
// was promised or wrote later. The disk is resized meanwhile: it has the size of its
// header, its file has room for it, and nothing that was promised lies behind.
func TestPowerCut(t *testing.T) {
	for _, unit := range []int{512, 4096} {
		t.Run(strconv.Itoa(unit), func(t *testing.T) {
			start := newHeader(t, unit)
			rapid.Check(t, func(rt *rapid.T) { powerCut(rt, unit, start) })
		})
	}
}

func powerCut(rt *rapid.T, unit int, start []byte) {
	c, dev := newCut(rt, unit, start)
	for range rapid.IntRange(10, 60).Draw(rt, "steps") {
		c.step()
	}
	dev.Clear()
	c.drain()
	c.close()

	after := newReopened(rt, c)
	defer after.close()
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "cuts"), 0))
	last := c.clock.Now()
	for i := range min(last+1, maxCuts) {
		at := i
		if last >= maxCuts {
			at = rng.Int64N(last + 1)
		}
		promised := c.told.Versions(at)
		for _, way := range ways {
			after.check(fmt.Sprintf("cut at %d of %d, %s written", at, last, way.name), at, way.pick(rng, at), promised)
		}
	}
}

// reopened is the disk after a cut.
type reopened struct {
	*cut
	medium *memory.Device
	header []byte
	queue  blockdev.Queue
	driver *blockdevtest.Driver
	layer  blockdev.Device
}

func newReopened(rt *rapid.T, c *cut) *reopened {
	r := &reopened{cut: c, medium: cutMemory(rt, int(c.unit)), header: bytes.Clone(c.start)}
	must(rt, r.medium.Grow(cutMost))
	r.layer = encrypted(rt, r.medium, int(c.unit))
	var err error
	r.queue, err = r.layer.OpenQueue(blockdev.QueueConfig{Depth: 1})
	must(rt, err)
	r.driver = blockdevtest.NewDriver(rt, r.queue, 1)
	return r
}

func (r *reopened) close() { must(r.rt, errors.Join(r.queue.Close(), r.layer.Close())) }

func (r *reopened) check(when string, at int64, choose func(int64, []fault.Version) int, promised map[int64][]fault.Version) {
	defer r.data.Cut(r.medium.Bytes(), at, choose)()
	defer r.cut.header.Cut(r.header, at, choose)()
	size := r.checkHeader(when, at)
	if file := r.least(at); file < size {
		r.rt.Fatalf("%s: a file of %d bytes has to hold a disk of %d", when, file, size)
	}
	for offset := range promised {
		if offset >= size && !promised[offset][0].Base {
			r.rt.Fatalf("%s: the guest was promised what it wrote at %d, and the disk has %d bytes", when, offset, size)
		}
	}
	got := r.driver.Read(0, size)
	for offset := int64(0); offset < size; offset += r.unit {
		may := [][]byte{}
		for _, v := range promised[offset] {
			may = append(may, v.Data)
		}
		if len(may) == 0 {
			may = append(may, nil)
		}
		if block := got[offset : offset+r.unit]; !oneOf(block, may) {
			r.rt.Fatalf("%s: the block at %d is none of the %d that it may be", when, offset, len(may))
		}
	}
}

// checkHeader wants each update that had ended, or a later one that had begun. It
// returns the size of the disk.
func (r *reopened) checkHeader(when string, at int64) int64 {
	h, err := luks.Open(headerFile{r.header})
	if err != nil {
		r.rt.Fatalf("%s: %v", when, err)
	}
	t, err := h.Token()
	must(r.rt, err)
	version, err := strconv.Atoi(t.KeyVersion)
	must(r.rt, err)
	if at == r.clock.Now() {
		must(r.rt, h.VerifyKey(key))
	}
	least, most := 0, 0
	for i, u := range r.updates {
		if u.ended <= at {
			least = i + 1
		}
		if u.began <= at {
			most = i + 1
		}
	}
	if version < least || version > most {
		r.rt.Fatalf("%s: the header is that of update %d, not %d to %d", when, version, least, most)
	}
	want := int64(cutCapacity)
	if version > 0 {
		want = r.updates[version-1].size
	}
	if size, fixed := h.Size(); !fixed || size != want {
		r.rt.Fatalf("%s: the disk of update %d has %d bytes, want %d", when, version, size, want)
	}
	return want
}
