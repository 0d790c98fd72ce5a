package bounce

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/memory"
	"sealblk/blockdev/null"
)

var errBad = errors.New("bad medium")

// stack of a layer over a fault over memory, with a queue of the layer.
type rig struct {
	mem   *memory.Device
	fault *blockdevtest.Fault
	queue *queue
	*blockdevtest.Driver
}

func newRig(t testing.TB, cfg Config, opts blockdevtest.FaultOptions, depth int) *rig {
	t.Helper()
	mem := newMemory(t, 4<<20, memory.Options{})
	fault := blockdevtest.NewFault(mem, opts)
	layer := newLayer(t, fault, cfg)
	q, err := layer.OpenQueue(blockdev.QueueConfig{Depth: depth})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(q.Close(), layer.Close()); err != nil {
			t.Error(err)
		}
	})
	return &rig{mem, fault, q.(*queue), blockdevtest.NewDriver(t, q, depth)}
}

func request(op blockdev.Op, offset int64, data ...[]byte) *blockdev.Request {
	r := &blockdev.Request{Op: op, Offset: offset, Buffers: data}
	r.Length = r.Buffered()
	return r
}

func TestStoredBytesAreTransformed(t *testing.T) {
	for _, unit := range []int{512, 1024, 2048, 4096} {
		x := toy{unit}
		r := newRig(t, with(tiny, func(c *Config) { c.Unit, c.Transform, c.WriteZeroes = unit, x, Store }), blockdevtest.FaultOptions{}, 4)
		plain := blockdevtest.Noise(1, 100<<10)
		r.Must(blockdevtest.NewScatter(1, 100, 5000, 8192, 1, 2999, 100<<10-16292).Fill(plain).Request(blockdev.Write, 8192))
		r.Must(&blockdev.Request{Op: blockdev.WriteZeroes, Offset: 16384, Length: 36 << 10})
		clear(plain[8192 : 8192+36<<10])
		x.apply(plain, plain, 8192)
		if !bytes.Equal(plain, r.mem.Bytes()[8192:8192+100<<10]) {
			t.Errorf("unit %d: the stored bytes are not the transform of what was written", unit)
		}
	}
}

func TestAlignedRequestsGoStraight(t *testing.T) {
	r := newRig(t, Config{Aligned: 512}, blockdevtest.FaultOptions{}, 4)
	var below []*byte
	r.fault.OnSubmit(func(r *blockdev.Request) error {
		for _, b := range r.Buffers {
			below = append(below, unsafe.SliceData(b))
		}
		return nil
	})
	memory, err := newArena(16384, false)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.free()
	page := memory.mem
	for _, c := range []struct {
		buffers  [][]byte
		straight bool
	}{
		{[][]byte{page[:4096]}, true},
		{[][]byte{page[512:1024], page[4096:8192]}, true},
		{[][]byte{page[1:513]}, false},
		{[][]byte{page[512:1025], page[2048 : 2048+511]}, false},
		{[][]byte{page[:512], page[1024+8 : 1024+8+512]}, false},
	} {
		for _, op := range []blockdev.Op{blockdev.Read, blockdev.Write} {
			below = nil
			r.Must(request(op, 0, c.buffers...))
			if got := below[0] == unsafe.SliceData(c.buffers[0]); got != c.straight {
				t.Errorf("op %d with buffers of %d bytes: straight is %v, want %v", op, len(c.buffers[0]), got, c.straight)
			}
		}
	}
}

// TestErrorOfAPart fails each part in turn: the request fails with its error, its
// neighbours do not notice.
func TestErrorOfAPart(t *testing.T) {
	for _, op := range []blockdev.Op{blockdev.Read, blockdev.Write} {
		for _, opts := range []blockdevtest.FaultOptions{{}, {Async: true, Seed: 3, Order: blockdevtest.Shuffled}} {
			for n := 1; n <= 10; n++ {
				r := newRig(t, with(tiny, func(c *Config) { c.LargeChunks = 2 }), opts, 4)
				long := request(op, 0, make([]byte, 9*8192+512))
				short := request(op, 1<<20, make([]byte, 4096))
				r.fault.FailNth(n, errBad)
				r.Run(long)
				if !errors.Is(long.Err, errBad) {
					t.Fatalf("op %d: part %d failed, the request says %v", op, n, long.Err)
				}
				r.Must(short, long)
			}
		}
	}
}

func TestFirstErrorWins(t *testing.T) {
	r := newRig(t, with(tiny, func(c *Config) { c.LargeChunks = 4 }), blockdevtest.FaultOptions{}, 4)
	r.fault.FailNth(2, errBad)
	r.fault.FailNth(3, errors.New("another"))
	long := request(blockdev.Read, 0, bytes.Repeat([]byte{1}, 32<<10))
	if err := r.Do(long); !errors.Is(err, errBad) {
		t.Fatalf("got %v", err)
	}
}

func TestShortPartIsAnError(t *testing.T) {
	r := newRig(t, tiny, blockdevtest.FaultOptions{}, 4)
	r.fault.ShortNth(2)
	if err := r.Do(request(blockdev.Read, 0, make([]byte, 64<<10))); !errors.Is(err, blockdev.ErrShort) {
		t.Fatalf("got %v", err)
	}
}

// TestMixedErrorsWithFullPool has every third part of many large requests fail.
func TestMixedErrorsWithFullPool(t *testing.T) {
	const depth = 16
	r := newRig(t, with(tiny, func(c *Config) { c.LargeChunks = 3 }),
		blockdevtest.FaultOptions{Async: true, Seed: 9, Order: blockdevtest.Shuffled}, depth)
	r.fault.OnSubmit(func(r *blockdev.Request) error {
		if r.Offset>>13%3 == 2 {
			return errBad
		}
		return nil
	})
	for round := range 20 {
		var batch []*blockdev.Request
		for i := range depth {
			length := int64(i+1) * 4096
			batch = append(batch, request(blockdev.Op((i+round)%2), int64(i)<<17, make([]byte, length)))
		}
		r.Run(batch...)
		for i, req := range batch {
			// Offsets are multiples of 16 parts of 8 KiB; 16 is 1 modulo 3.
			want := false
			for at := req.Offset; at < req.Offset+req.Length; at += 8192 {
				want = want || at>>13%3 == 2
			}
			if errors.Is(req.Err, errBad) != want {
				t.Fatalf("request %d: %v, want an error: %v", i, req.Err, want)
			}
		}
	}
}

// TestErrorWaitsForAllParts: memory of a request that failed is not touched after
// it completed, so it must not complete early.
func TestErrorWaitsForAllParts(t *testing.T) {
	r := newRig(t, with(tiny, func(c *Config) { c.LargeChunks = 4 }), blockdevtest.FaultOptions{Async: true}, 4)
	r.fault.FailNth(1, errBad)
	r.fault.Hold()
	long := request(blockdev.Read, 0, make([]byte, 64<<10))
	r.Submit(long)
	r.Push()
	for parts := 4; parts > 0; parts-- {
		if r.Reap() != 0 || r.InFlight() != 1 {
			t.Fatalf("complete with %d parts below", parts)
		}
		r.fault.Release(1)
		for r.fault.InFlight() == parts && r.InFlight() == 1 {
			r.Reap()
		}
	}
	r.fault.Resume()
	r.Finish()
	if !errors.Is(long.Err, errBad) || r.fault.Submitted() != 4 {
		t.Fatalf("got %v after %d parts; no part may start after the error", long.Err, r.fault.Submitted())
	}
}

// TestSmallOvertakesLarge: a line of requests that wait for chunks does not hold
// up small ones.
func TestSmallOvertakesLarge(t *testing.T) {
	r := newRig(t, tiny, blockdevtest.FaultOptions{Async: true}, 8)
	r.fault.Hold()
	r.Submit(request(blockdev.Write, 0, make([]byte, 1<<20)), request(blockdev.Write, 1<<20, make([]byte, 1<<20)))
	r.Push()
	if n := r.fault.Submitted(); n != 1 {
		t.Fatalf("%d parts below with one large chunk", n)
	}
	r.Submit(request(blockdev.Read, 2<<20, make([]byte, 4096)), &blockdev.Request{Op: blockdev.Flush})
	if n := r.fault.Submitted(); n != 3 {
		t.Fatalf("a small request waits behind large ones")
	}
	r.fault.Resume()
	r.Finish()
}

func TestFUAReachesEveryPart(t *testing.T) {
	r := newRig(t, with(tiny, func(c *Config) { c.WriteZeroes = Store }), blockdevtest.FaultOptions{}, 4)
	var fua, parts int
	r.fault.OnSubmit(func(r *blockdev.Request) error {
		parts++
		if r.FUA {
			fua++
		}
		return nil
	})
	for _, want := range []bool{true, false} {
		fua, parts = 0, 0
		w := request(blockdev.Write, 0, make([]byte, 100<<10))
		z := &blockdev.Request{Op: blockdev.WriteZeroes, Length: 100 << 10, FUA: want}
		w.FUA = want
		r.Must(w, z)
		if parts != 26 || (fua == parts) != want || (fua == 0) == want {
			t.Errorf("FUA %v: on %d of %d parts", want, fua, parts)
		}
	}
}

func TestPolicies(t *testing.T) {
	type op = blockdev.Op
	const none = op(200)
	for _, c := range []struct {
		name  string
		cfg   Config
		lower memory.Options
		req   blockdev.Request
		below op
		err   error
	}{
		{name: "discard passed", req: blockdev.Request{Op: blockdev.Discard}, below: blockdev.Discard},
		{name: "discard ignored", cfg: Config{Discard: Ignore}, req: blockdev.Request{Op: blockdev.Discard}, below: none},
		{name: "discard ignored, not below", cfg: Config{Discard: Ignore}, lower: memory.Options{NoDiscard: true},
			req: blockdev.Request{Op: blockdev.Discard}, below: none},
		{name: "discard not below", lower: memory.Options{NoDiscard: true}, req: blockdev.Request{Op: blockdev.Discard},
			below: none, err: blockdev.ErrNotSupported},
		{name: "zeroes passed", req: blockdev.Request{Op: blockdev.WriteZeroes}, below: blockdev.WriteZeroes},
		{name: "zeroes not below", lower: memory.Options{NoWriteZeroes: true}, req: blockdev.Request{Op: blockdev.WriteZeroes},
			below: none, err: blockdev.ErrNotSupported},
		{name: "zeroes stored", cfg: Config{WriteZeroes: Store}, lower: memory.Options{NoWriteZeroes: true},
			req: blockdev.Request{Op: blockdev.WriteZeroes, MayUnmap: true}, below: blockdev.Write},
		{name: "zeroes unmapped", cfg: Config{WriteZeroes: PassUnmap},
			req: blockdev.Request{Op: blockdev.WriteZeroes, MayUnmap: true}, below: blockdev.WriteZeroes},
		{name: "zeroes not to unmap", cfg: Config{WriteZeroes: PassUnmap},
			req: blockdev.Request{Op: blockdev.WriteZeroes}, below: blockdev.Write},
		{name: "zeroes unmapped, not below", cfg: Config{WriteZeroes: PassUnmap}, lower: memory.Options{NoWriteZeroes: true},
			req: blockdev.Request{Op: blockdev.WriteZeroes, MayUnmap: true}, below: blockdev.Write},
	} {
		t.Run(c.name, func(t *testing.T) {
			fault := blockdevtest.NewFault(newMemory(t, 1<<20, c.lower), blockdevtest.FaultOptions{})
			layer := newLayer(t, fault, c.cfg)
			q, err := layer.OpenQueue(blockdev.QueueConfig{Depth: 1})
			if err != nil {
				t.Fatal(err)
			}
			below := none
			fault.OnSubmit(func(r *blockdev.Request) error { below = r.Op; return nil })
			c.req.Length = 4096
			if err := blockdevtest.NewDriver(t, q, 1).Do(&c.req); !errors.Is(err, c.err) || below != c.below {
				t.Errorf("got error %v and operation %d below, want %v and %d", err, below, c.err, c.below)
			}
			if err := errors.Join(q.Close(), layer.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHugeRequest moves 1 GiB through 72 KiB of bounce memory.
func TestHugeRequest(t *testing.T) {
	dev, err := null.New(2<<30, null.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fault := blockdevtest.NewFault(dev, blockdevtest.FaultOptions{})
	most := 0
	fault.OnSubmit(func(*blockdev.Request) error { most = max(most, fault.InFlight()); return nil })
	layer := newLayer(t, fault, with(tiny, func(c *Config) { c.LargeChunk = 64 << 10 }))
	q, err := layer.OpenQueue(blockdev.QueueConfig{Depth: 2})
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 1<<20+1)
	var buffers [][]byte
	for range 1 << 10 {
		buffers = append(buffers, piece[1:])
	}
	d := blockdevtest.NewDriver(t, q, 2)
	d.Must(request(blockdev.Write, 512, buffers...), request(blockdev.Read, 1<<30, buffers...))
	if most > 3 {
		t.Errorf("%d requests below at a time, with one large chunk and a depth of 2", most)
	}
	if err := errors.Join(q.Close(), layer.Close()); err != nil {
		t.Error(err)
	}
}

func TestTooManyInFlight(t *testing.T) {
	r := newRig(t, tiny, blockdevtest.FaultOptions{Async: true}, 2)
	r.fault.Hold()
	var reqs []*blockdev.Request
	for i := range int64(4) {
		reqs = append(reqs, request(blockdev.Write, i*4096, make([]byte, 4096)))
	}
	r.Submit(reqs...)
	r.Push()
	r.fault.Resume()
	r.Finish()
	for i, req := range reqs {
		if want := []error{nil, nil, ErrDepth, ErrDepth}[i]; !errors.Is(req.Err, want) {
			t.Errorf("request %d: %v, want %v", i, req.Err, want)
		}
	}
	r.Must(reqs[2:]...)
}

func TestGrowingLower(t *testing.T) {
	mem := newMemory(t, 8192, memory.Options{MaxCapacity: 1 << 20})
	layer := newLayer(t, mem, Config{Unit: 4096, Transform: toy{4096}})
	for _, c := range []struct{ grow, want int64 }{{8192 + 512, 8192}, {16384, 16384}, {20479 &^ 511, 16384}} {
		if err := mem.Grow(c.grow); err != nil {
			t.Fatal(err)
		}
		if got := layer.Info().Capacity; got != c.want {
			t.Errorf("%d bytes below: capacity %d, want %d", c.grow, got, c.want)
		}
	}
	if err := layer.Close(); err != nil {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	mem := newMemory(t, 1<<20+512, memory.Options{})
	defer mem.Close()
	for _, cfg := range []Config{
		{Unit: 1024}, {Unit: 3}, {Unit: -1}, {Unit: 8192},
		{SmallChunk: 1000}, {SmallChunk: -4096}, {LargeChunk: 4096}, {LargeChunk: 20000}, {LargeChunks: -1},
		{Aligned: 3}, {Aligned: -512}, {Aligned: 512, Transform: toy{512}},
		{WriteZeroes: Ignore}, {WriteZeroes: 9}, {Discard: Store},
	} {
		if _, err := New(mem, cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: got %v", cfg, err)
		}
	}
}

func TestCloseUnmapsTheArena(t *testing.T) {
	layer := newLayer(t, newMemory(t, 1<<20, memory.Options{}), Config{HugePages: true})
	q, err := layer.OpenQueue(blockdev.QueueConfig{Depth: 128})
	if err != nil {
		t.Fatal(err)
	}
	start := uintptr(unsafe.Pointer(unsafe.SliceData(q.(*queue).arena.mem)))
	if !mapped(t, start) {
		t.Fatalf("the arena is not in the memory map")
	}
	if err := errors.Join(q.Close(), layer.Close()); err != nil {
		t.Error(err)
	}
	if mapped(t, start) {
		t.Errorf("the arena is still mapped")
	}
}

// mapped reports whether an address is in a mapping of this process.
func mapped(t *testing.T, addr uintptr) bool {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x", &from, &to); n == 2 && from <= addr && addr < to {
			return true
		}
	}
	return false
}

// TestChunksShareTheFirstHugePage: chunks do not overlap, and a queue that has had a few
// requests of every size in flight has taken one huge page.
func TestChunksShareTheFirstHugePage(t *testing.T) {
	for _, cfg := range []Config{{}, tiny, {SmallChunk: 1 << 20, LargeChunk: 4 << 20, LargeChunks: 3}} {
		for _, depth := range []int{1, 64, 128, 1000} {
			r := newRig(t, cfg, blockdevtest.FaultOptions{}, depth)
			base := uintptr(unsafe.Pointer(unsafe.SliceData(r.queue.arena.mem)))
			end := func(c chunk) uintptr {
				return uintptr(unsafe.Pointer(unsafe.SliceData(c.mem))) - base + uintptr(len(c.mem))
			}
			chunks := slices.Clone(r.queue.chunks)
			if cfg.LargeChunk == 0 && (end(chunks[0]) > hugePage || end(chunks[depth]) > hugePage || end(chunks[depth+11]) > hugePage) {
				t.Errorf("depth %d: what is used first is not in the first huge page", depth)
			}
			slices.SortFunc(chunks, func(a, b chunk) int { return cmp.Compare(end(a), end(b)) })
			at := uintptr(0)
			for _, c := range chunks {
				if end(c)-uintptr(len(c.mem)) != at {
					t.Fatalf("depth %d: a chunk begins at %#x, not at %#x", depth, end(c)-uintptr(len(c.mem)), at)
				}
				at = end(c)
			}
			if at > uintptr(len(r.queue.arena.mem)) {
				t.Errorf("depth %d: chunks to %#x", depth, at)
			}
		}
	}
}

// TestHugeArena: whole pages of the pool if there are any and they are asked for, else
// what the kernel may make huge, and all of it can be used and given back.
func TestHugeArena(t *testing.T) {
	for _, pool := range []bool{false, true} {
		a, err := newArena(5<<20, pool)
		if err != nil {
			t.Fatal(err)
		}
		start := uintptr(unsafe.Pointer(unsafe.SliceData(a.mem)))
		if len(a.mem) != 6<<20 || start%hugePage != 0 {
			t.Errorf("%d bytes at %#x, not whole huge pages", len(a.mem), start)
		}
		for i := range a.mem {
			a.mem[i] = 1
		}
		if flags := flagsAt(t, start); !slices.Contains(flags, "hg") && !slices.Contains(flags, "ht") {
			t.Errorf("pool %v: the kernel makes no huge pages there: %v", pool, flags)
		}
		if err := a.free(); err != nil {
			t.Error(err)
		}
	}
}

// flagsAt are those of the mapping at an address, as proc(5) has them: hg is for what may
// be huge pages, ht for the pool's.
func flagsAt(t *testing.T, addr uintptr) []string {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x", &from, &to); n == 2 {
			inside = from <= addr && addr < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	t.Fatalf("no mapping at %#x", addr)
	return nil
}
