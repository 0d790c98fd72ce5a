package bench

import (
	"errors"
	"math"
	"testing"
	"time"

	"sealblk/vhost/frontend"
)

func workload(rw string) Workload {
	return Workload{RW: rw, BlockSize: 4096, IODepth: 8, Queues: 1, Runtime: 50 * time.Millisecond, ReadMix: 70, Seed: 1, Polling: true}
}

func TestWorkloadsThatMakeNoSense(t *testing.T) {
	for name, change := range map[string]func(*Workload){
		"name":       func(w *Workload) { w.RW = "trim" },
		"odd block":  func(w *Workload) { w.BlockSize = 4095 },
		"no block":   func(w *Workload) { w.BlockSize = 0 },
		"big block":  func(w *Workload) { w.BlockSize = 32 << 20 },
		"no depth":   func(w *Workload) { w.IODepth = 0 },
		"deep":       func(w *Workload) { w.IODepth = 1025 },
		"no queue":   func(w *Workload) { w.Queues = 0 },
		"no time":    func(w *Workload) { w.Runtime = 0 },
		"mix":        func(w *Workload) { w.ReadMix = 101 },
		"size below": func(w *Workload) { w.Size = -1 },
	} {
		w := workload(RandRead)
		if err := w.Check(); err != nil {
			t.Fatal(err)
		}
		change(&w)
		if err := w.Check(); !errors.Is(err, ErrWorkload) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestBlocksFitTheDevice(t *testing.T) {
	for _, c := range []struct {
		size, capacity int64
		queues         int
		verify         bool
		want           uint64
	}{
		{0, 1 << 20, 1, false, 256},
		{0, 1<<20 + 4095, 3, false, 85},
		{64 << 10, 1 << 20, 2, false, 8},
		{2 << 20, 1 << 20, 1, false, 0},
		{4095, 1 << 20, 1, false, 0},
		{32 << 10, 1 << 20, 1, true, 0}, // each request needs a block of its own
		{36 << 10, 1 << 20, 1, true, 9},
	} {
		w := workload(RandRW)
		w.Size, w.Queues, w.Verify = c.size, c.queues, c.verify
		got, err := w.blocks(c.capacity)
		if got != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%+v: %d blocks, %v", c, got, err)
		}
	}
}

// All blocks of a queue's part are visited evenly, none outside, and the same with the
// same seed.
func TestRandomStream(t *testing.T) {
	w := workload(RandRW)
	w.Queues, w.Verify = 2, true
	const blocks, rounds = 100, 1000
	s, again, other := newStream(&w, 1, blocks), newStream(&w, 1, blocks), newStream(&w, 0, blocks)
	var hits [blocks]int
	reads, same := 0, 0
	for range blocks * rounds {
		typ, block := s.next()
		if typ2, block2 := again.next(); typ2 != typ || block2 != block {
			t.Fatal("the same seed gives other blocks")
		}
		if _, b := other.next(); b+blocks == block {
			same++
		}
		if typ == frontend.TypeIn {
			reads++
		}
		hits[block-blocks]++
	}
	chi := 0.0
	for _, n := range hits {
		chi += math.Pow(float64(n)-rounds, 2) / rounds
	}
	if chi > 160 { // 99 degrees of freedom: 1 in 10000
		t.Errorf("blocks are chosen unevenly: chi square %.0f", chi)
	}
	if share := float64(reads) / (blocks * rounds); math.Abs(share-0.7) > 0.01 {
		t.Errorf("%.3f are reads, want 0.7", share)
	}
	if same > 2*rounds {
		t.Errorf("two queues chose the same block %d times", same)
	}
}

func TestRandomQueuesShareTheDevice(t *testing.T) {
	w := workload(RandRead)
	w.Queues = 2
	s := newStream(&w, 1, 10)
	low, high := uint64(math.MaxUint64), uint64(0)
	for range 1000 {
		_, b := s.next()
		low, high = min(low, b), max(high, b)
	}
	if low != 0 || high != 19 {
		t.Errorf("queue 1 chose blocks %d to %d, want 0 to 19", low, high)
	}
}

func TestSequentialStream(t *testing.T) {
	w := workload(Write)
	w.Queues = 2
	s := newStream(&w, 1, 3)
	for i, want := range []uint64{3, 4, 5, 3, 4} {
		if typ, block := s.next(); block != want || typ != frontend.TypeOut {
			t.Errorf("request %d: type %d, block %d, want block %d", i, typ, block, want)
		}
	}
}

func TestShares(t *testing.T) {
	for percent, always := range map[int]uint32{0: frontend.TypeOut, 100: frontend.TypeIn} {
		w := workload(RandRW)
		w.ReadMix = percent
		s := newStream(&w, 0, 10)
		for range 10000 {
			if typ, _ := s.next(); typ != always {
				t.Fatalf("%d percent reads: a request of type %d", percent, typ)
			}
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{512: "512", 4096: "4k", 1536: "1536", 1 << 20: "1m", 3 << 30: "3g", 1 << 41: "2t", 128 << 10: "128k"} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
