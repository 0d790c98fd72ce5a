package faults

import (
	"bytes"
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
	cutCapacity = 256 << 10
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

// update is a change of the header: the key version becomes its number.
type update struct{ began, ended int64 }

// cut is a disk whose power is going to fail: a record of its data, of its header,
// and of what its guest did and was told, by one clock.
type cut struct {
	rt      *rapid.T
	unit    int64
	clock   fault.Clock
	data    *fault.Log
	header  *fault.Log
	told    *fault.Log
	busy    []bool
	through bool // the guest's writes are write-through

	start   []byte // the header in the beginning
	file    luks.File
	current *luks.Header
	updates []update

	*stack
}

func newCut(rt *rapid.T, unit int, start []byte) (*cut, *fault.Device) {
	c := &cut{rt: rt, unit: int64(unit), start: start, busy: make([]bool, cutCapacity/unit)}
	c.data, c.told = fault.NewLog(&c.clock, c.unit), fault.NewLog(&c.clock, c.unit)
	c.header = fault.NewLog(&c.clock, 512)
	c.file = fault.File{Storage: headerFile{bytes.Clone(start)}, Log: c.header}
	var err error
	c.current, err = luks.Open(c.file)
	must(rt, err)
	dev := fault.New(cutMemory(rt, unit), fault.Options{Async: true, Order: fault.Shuffled, Seed: rapid.Uint64().Draw(rt, "seed")})
	if rapid.Bool().Draw(rt, "faults") {
		dev.Add(fault.Rule{Probability: .1, Err: unix.EIO, Effect: fault.Torn})
	}
	c.stack = newStack(rt, fault.Record(dev, c.data, 0), unit)
	if c.through = rapid.Bool().Draw(rt, "write-through"); c.through {
		must(rt, c.disk.SetWriteCache(false))
	}
	return c, dev
}

func cutMemory(t failer, unit int) *memory.Device {
	t.Helper()
	d, err := memory.New(cutCapacity, memory.Options{LogicalBlockSize: unit})
	must(t, err)
	return d
}

func (c *cut) step() {
	switch kind := rapid.IntRange(0, 11).Draw(c.rt, "step"); {
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
		c.updateHeader()
	default:
		c.drain()
	}
	c.poll()
}

// change writes, or makes zeros, where nothing is in flight.
func (c *cut) change(typ uint32) {
	first := rapid.IntRange(0, len(c.busy)-1).Draw(c.rt, "unit")
	n := rapid.IntRange(1, min(6, len(c.busy)-first)).Draw(c.rt, "units")
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

// updateHeader is a re-wrap, while the guest's requests are in flight.
func (c *cut) updateHeader() {
	u := update{began: c.clock.Now()}
	version := strconv.Itoa(len(c.updates) + 1)
	must(c.rt, luks.Update(c.file, c.current, func(h *luks.Header) error {
		t, err := h.Token()
		if err != nil {
			return err
		}
		t.KeyVersion = version
		return errors.Join(h.SetToken(t), h.Resize(cutCapacity))
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
// was promised or wrote later.
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
	r.checkHeader(when, at)
	got := r.driver.Read(0, cutCapacity)
	for offset := int64(0); offset < cutCapacity; offset += r.unit {
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

// checkHeader wants each update that had ended, or a later one that had begun.
func (r *reopened) checkHeader(when string, at int64) {
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
}
