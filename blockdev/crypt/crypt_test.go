package crypt

import (
	"bytes"
	"errors"
	"testing"

	"sealblk/blockdev"
	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/bounce"
	"sealblk/blockdev/memory"
	"sealblk/blockdev/null"
)

var (
	errBad   = errors.New("bad medium")
	allUnits = []int{512, 1024, 2048, 4096}
)

// TestStoredBytes compares what lies on the lower device with the encryption by
// other software.
func TestStoredBytes(t *testing.T) {
	for _, unit := range allUnits {
		r := newRig(t, unit, Options{}, tiny, blockdevtest.FaultOptions{}, 4)
		o := newOracle(t, unit)
		const offset, size = 3 << 20, 200 << 10
		plain := blockdevtest.Noise(uint64(unit), size)
		r.Must(blockdevtest.NewScatter(3, 1, 5000, 77, 65536, 0, 4095, 20000, size-94709).Fill(plain).Request(blockdev.Write, offset))
		at := r.mem.Bytes()[offset : offset+size]
		if !bytes.Equal(at, o.stored(plain, offset)) {
			t.Fatalf("unit %d: what is stored is not AES-XTS of what was written", unit)
		}

		r.Must(&blockdev.Request{Op: blockdev.WriteZeroes, MayUnmap: true, Offset: offset + 8192, Length: 100 << 10})
		clear(plain[8192 : 8192+100<<10])
		if !bytes.Equal(at, o.stored(plain, offset)) {
			t.Fatalf("unit %d: WriteZeroes did not store the encryption of zeros", unit)
		}
		if got := r.Read(offset, size); !bytes.Equal(got, plain) {
			t.Fatalf("unit %d: read something else than was written", unit)
		}

		// And the other way round: what other software wrote is what is read.
		plain = blockdevtest.Noise(uint64(unit)+1, size)
		copy(at, o.stored(plain, offset))
		if got := r.Read(offset, size); !bytes.Equal(got, plain) {
			t.Fatalf("unit %d: other software's data is not read", unit)
		}
	}
}

// TestZeroUnits puts zero units among written ones in every pattern of 8.
func TestZeroUnits(t *testing.T) {
	for _, unit := range []int{512, 4096} {
		r := newRig(t, unit, Options{}, bounce.Config{}, blockdevtest.FaultOptions{}, 2)
		size := 8 * unit
		mem := guestMemory(t, size)
		for mask := range 256 {
			want := blockdevtest.Noise(uint64(mask), int64(size))
			r.Write(4096, want)
			for i := range 8 {
				if mask>>i&1 != 0 {
					clear(r.mem.Bytes()[4096+i*unit:][:unit])
					clear(want[i*unit:][:unit])
				}
			}
			for _, cut := range [][]int{{size}, {unit}, {unit - 1, 1}, {unit + 100, 3*unit - 30, 7}} {
				for i := range mem {
					mem[i] = 0xEE
				}
				r.Must(request(blockdev.Read, 4096, pieces(mem, cut...)...))
				if !bytes.Equal(mem, want) {
					t.Fatalf("unit %d, zero units %08b, pieces %v: read wrong bytes", unit, mask, cut)
				}
			}
		}
	}
}

// TestNearlyZeroUnits: one byte that is not zero makes a unit of ciphertext.
func TestNearlyZeroUnits(t *testing.T) {
	r := newRig(t, 512, Options{}, bounce.Config{}, blockdevtest.FaultOptions{}, 2)
	o := newOracle(t, 512)
	for _, place := range []int{0, 7, 8, 255, 504, 511} {
		stored := r.mem.Bytes()[1024:1536]
		clear(stored)
		stored[place] = 1
		if got := r.Read(1024, 512); !bytes.Equal(got, o.plain(stored, 1024)) {
			t.Errorf("a unit with byte %d set was not decrypted", place)
		}
	}
}

func TestZeroesAndDiscardPolicies(t *testing.T) {
	const offset, size = 1 << 20, 300 << 10
	zeroes := blockdev.Request{Op: blockdev.WriteZeroes, Offset: offset, Length: size}
	unmap := zeroes
	unmap.MayUnmap = true
	discard := blockdev.Request{Op: blockdev.Discard, Offset: offset, Length: size}
	const (
		isHole = iota
		isCiphertextOfZeros
		isOldData
	)
	for _, c := range []struct {
		name string
		opts Options
		req  blockdev.Request
		want int
	}{
		{"zeroes, default", Options{}, zeroes, isCiphertextOfZeros},
		{"zeroes that may unmap, default", Options{}, unmap, isCiphertextOfZeros},
		{"zeroes, thin", Options{Zeroes: ZeroesUnmap}, zeroes, isCiphertextOfZeros},
		{"zeroes that may unmap, thin", Options{Zeroes: ZeroesUnmap}, unmap, isHole},
		{"discard, default", Options{}, discard, isHole},
		{"discard, ignored", Options{Discard: DiscardIgnore}, discard, isOldData},
	} {
		r := newRig(t, 4096, c.opts, tiny, blockdevtest.FaultOptions{}, 2)
		o := newOracle(t, 4096)
		plain := blockdevtest.Noise(1, size)
		r.Write(offset, plain)
		r.Must(&c.req)
		stored := [][]byte{make([]byte, size), o.stored(make([]byte, size), offset), o.stored(plain, offset)}[c.want]
		if !bytes.Equal(r.mem.Bytes()[offset:offset+size], stored) {
			t.Errorf("%s: wrong bytes are stored", c.name)
		}
		if c.want != isOldData {
			clear(plain)
		}
		if !bytes.Equal(r.Read(offset, size), plain) {
			t.Errorf("%s: wrong bytes are read", c.name)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	mem := newMemory(t, 1<<20+512, memory.Options{})
	defer mem.Close()
	if _, err := New(mem, nil, Options{}); !errors.Is(err, ErrNoCipher) {
		t.Errorf("without a cipher: %v", err)
	}
	for _, unit := range allUnits[1:] {
		if _, err := New(mem, newCipher(t, unit), Options{}); !errors.Is(err, ErrNotUnits) {
			t.Errorf("half a unit of %d at the end: %v", unit, err)
		}
	}
	for _, opts := range []Options{{Discard: 2}, {Zeroes: 2}} {
		if _, err := New(mem, newCipher(t, 512), opts); !errors.Is(err, ErrPolicy) {
			t.Errorf("%+v: %v", opts, err)
		}
	}
	if mem.Info().Capacity == 0 {
		t.Error("a refused lower device was closed")
	}
}

// TestMixedErrorsWithFullPool: with more in flight than there is bounce memory and
// every third part failing, each request ends with its own outcome.
func TestMixedErrorsWithFullPool(t *testing.T) {
	const depth = 8
	r := newRig(t, 512, Options{}, tiny, blockdevtest.FaultOptions{Async: true, Order: blockdevtest.Shuffled, Seed: 5}, depth)
	bad := func(at int64) bool { return at>>13%3 == 2 }
	plain := blockdevtest.Noise(1, 1<<20)
	r.Write(0, plain)
	r.fault.OnSubmit(func(r *blockdev.Request) error {
		if bad(r.Offset) {
			return errBad
		}
		return nil
	})
	for round := range 10 {
		var batch []*blockdev.Request
		for i := range depth {
			at := int64(i) << 17
			length := int64(i*7+round+1) * 512 // from one block to past the third part
			data := make([]byte, length)
			op := blockdev.Op((i + round) % 2)
			if op == blockdev.Write {
				copy(data, plain[at:])
			}
			batch = append(batch, request(op, at, data))
		}
		r.Run(batch...)
		for i, req := range batch {
			want := false
			for at := req.Offset; at < req.Offset+req.Length; at += 8192 {
				want = want || bad(at)
			}
			if errors.Is(req.Err, errBad) != want {
				t.Fatalf("request %d: %v, want an error: %v", i, req.Err, want)
			}
			if !want && !bytes.Equal(req.Buffers[0], plain[req.Offset:req.Offset+req.Length]) {
				t.Fatalf("request %d: wrong data", i)
			}
		}
	}
	r.fault.OnSubmit(nil)
	if !bytes.Equal(r.Read(0, 1<<20), plain) {
		t.Fatalf("failed requests changed other data")
	}
}

// TestHugeRequest reads 1 GiB with 20 KiB of bounce memory.
func TestHugeRequest(t *testing.T) {
	dev, err := null.New(1<<30, null.Options{})
	if err != nil {
		t.Fatal(err)
	}
	layer := newLayer(t, dev, 4096, Options{}, tiny)
	q, err := layer.OpenQueue(blockdev.QueueConfig{Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	piece := bytes.Repeat([]byte{1}, 1<<20)
	r := request(blockdev.Read, 0, pieces(piece, 1<<20)...)
	for range 1<<10 - 1 {
		r.Buffers = append(r.Buffers, piece)
	}
	r.Length = 1 << 30
	blockdevtest.NewDriver(t, q, 1).Must(r)
	if !bytes.Equal(piece, make([]byte, 1<<20)) {
		t.Error("holes do not read as zeros")
	}
	if err := errors.Join(q.Close(), layer.Close()); err != nil {
		t.Error(err)
	}
}

// TestGrow: the layer is as large as what lies below, in whole units.
func TestGrow(t *testing.T) {
	layer := newLayer(t, newMemory(t, 1<<20, memory.Options{MaxCapacity: 4 << 20}), 4096, Options{}, tiny)
	if err := layer.Grow(2<<20 + 512); !errors.Is(err, blockdev.ErrMisaligned) {
		t.Errorf("half a unit: %v", err)
	}
	q, err := layer.OpenQueue(blockdev.QueueConfig{Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := blockdev.Grow(layer, 2<<20); err != nil {
		t.Fatal(err)
	}
	drv := blockdevtest.NewDriver(t, q, 1)
	want := blockdevtest.Noise(1, 64<<10)
	drv.Write(2<<20-64<<10, want)
	if got := drv.Read(2<<20-64<<10, 64<<10); !bytes.Equal(got, want) {
		t.Error("wrong data at the new end")
	}
	if err := errors.Join(q.Close(), layer.Close()); err != nil {
		t.Error(err)
	}
	fixed, err := null.New(1<<20, null.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := newLayer(t, fixed, 4096, Options{}, tiny).Grow(2 << 20); !errors.Is(err, blockdev.ErrNotSupported) {
		t.Errorf("over a device that cannot grow: %v", err)
	}
}
