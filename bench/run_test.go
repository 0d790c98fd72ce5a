package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sealblk/blockdev"
	"sealblk/vhost/frontend"
)

func run(t *testing.T, e Endpoint, w Workload) *Result {
	t.Helper()
	r, err := Run(context.Background(), e, w, Placement{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRunEveryWorkload(t *testing.T) {
	e, _ := serve(t, "memory")
	for _, rw := range Patterns {
		for _, verify := range []bool{false, true} {
			w := workload(rw)
			w.Verify = verify
			w.Ramp = 5 * time.Millisecond
			r := run(t, e, w)
			checkResult(t, r, &w, func(w Workload) *Result { return run(t, e, w) })
			if r.Target != "memory" || r.RW != rw || r.Verified != verify || r.DeviceBytes != testDevice || r.UsedBytes != testDevice {
				t.Errorf("%s: %+v", w.Name(), r)
			}
		}
	}
}

// checkResult asserts what has to hold of any result, and may have it measured again.
func checkResult(t *testing.T, r *Result, w *Workload, again func(Workload) *Result) {
	t.Helper()
	checkNumbers(t, r, w)
	if checkInFlight(r, w) == nil {
		return
	}
	// Queues do not end at the same moment; the longer the run, the less that matters.
	longer := *w
	longer.Runtime *= 10
	r = again(longer)
	checkNumbers(t, r, &longer)
	if err := checkInFlight(r, &longer); err != nil {
		t.Error(err)
	}
}

func checkNumbers(t *testing.T, r *Result, w *Workload) {
	t.Helper()
	l := r.LatencyUs
	switch {
	case r.Requests == 0, r.IOPS <= 0, r.ServerCPU == nil, r.FrontendCPU <= 0, r.FrontendBusy < 0, r.FrontendBusy > 1:
		t.Errorf("%s: %+v", w.Name(), r)
	case l.P50 <= 0, l.P50 > l.P99, l.P99 > l.P999, l.P999 > l.Max, l.Mean > l.Max:
		t.Errorf("%s: latency %+v", w.Name(), l)
	case r.RuntimeS < w.Runtime.Seconds(), r.MBps/r.IOPS*1e6-float64(w.BlockSize) > 1:
		t.Errorf("%s: %.3f s, %.0f IOPS, %.1f MB/s", w.Name(), r.RuntimeS, r.IOPS, r.MBps)
	}
}

// checkInFlight is Little's law: what is in flight is throughput times latency, but for
// requests that lie across the ends of what is measured.
func checkInFlight(r *Result, w *Workload) error {
	l := r.LatencyUs
	depth, across := float64(w.IODepth*w.Queues), l.Max/1e6/r.RuntimeS
	if inFlight := r.IOPS * l.Mean / 1e6; inFlight < depth*(0.9-across) || inFlight > depth*(1.05+across) {
		return fmt.Errorf("%s: %.1f IOPS at %.1f us is %.2f in flight, not %.0f", w.Name(), r.IOPS, l.Mean, inFlight, depth)
	}
	return nil
}

func TestRunShapes(t *testing.T) {
	e, _ := serve(t, "memory")
	for name, change := range map[string]func(*Workload){
		"queues":   func(w *Workload) { w.Queues = 3 },
		"depth 1":  func(w *Workload) { w.IODepth = 1 },
		"deep":     func(w *Workload) { w.IODepth, w.Indirect = 500, true },
		"large":    func(w *Workload) { w.BlockSize = 128 << 10 },
		"small":    func(w *Workload) { w.BlockSize = 512 },
		"sleeping": func(w *Workload) { w.Polling = false },
		"part":     func(w *Workload) { w.Size = 1 << 20 },
		"indirect": func(w *Workload) { w.Indirect = true },
	} {
		t.Run(name, func(t *testing.T) {
			w := workload(RandRW)
			w.Verify = true
			change(&w)
			checkResult(t, run(t, e, w), &w, func(w Workload) *Result { return run(t, e, w) })
		})
	}
}

func TestRunRefuses(t *testing.T) {
	e, _ := serve(t, "memory")
	for name, change := range map[string]func(*Workload){
		"nothing":          func(w *Workload) { *w = Workload{} },
		"beyond the end":   func(w *Workload) { w.Size = testDevice + 4096 },
		"too few blocks":   func(w *Workload) { w.Verify, w.Size = true, 4096 },
		"unaligned blocks": func(w *Workload) { w.BlockSize = 513 },
	} {
		w := workload(RandRead)
		change(&w)
		if _, err := Run(context.Background(), e, w, Placement{}); !errors.Is(err, ErrWorkload) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	w := workload(RandRead)
	w.Queues = 5
	if _, err := Run(context.Background(), e, w, Placement{}); !errors.Is(err, frontend.ErrNotOffered) {
		t.Errorf("more queues than there are: got %v", err)
	}
	if _, err := Run(context.Background(), Endpoint{Name: "x", Socket: t.TempDir() + "/none"}, workload(Read), Placement{}); err == nil {
		t.Error("ran without a server")
	}
}

// A server that returns wrong data is found out, and the error says where.
func TestVerifyFindsDamage(t *testing.T) {
	for _, queues := range []int{1, 3} {
		for name, damage := range map[string]func(*blockdev.Request){
			"bit":  func(r *blockdev.Request) { r.Buffers[0][100] ^= 4 },
			"zero": func(r *blockdev.Request) { clear(r.Buffers[0]) },
		} {
			e, dev := serve(t, "damaged")
			const bad = 700 << 10
			dev.OnDone(func(r *blockdev.Request) {
				if r.Op == blockdev.Read && r.Offset == bad {
					damage(r)
				}
			})
			w := workload(RandRead)
			w.Verify, w.Queues = true, queues
			_, err := Run(context.Background(), e, w, Placement{})
			if !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), fmt.Sprintf("offset %d ", bad)) {
				t.Errorf("%s, %d queues: got %v", name, queues, err)
			}
		}
	}
}

func TestVerifyFindsLostAndMisplacedWrites(t *testing.T) {
	const bad, other = 28 << 10, 40 << 10
	for name, redirect := range map[string]int64{"misplaced": other, "lost": -1} {
		e, dev := serve(t, name)
		writes := 0
		dev.OnSubmit(func(r *blockdev.Request) error {
			if r.Op != blockdev.Write || r.Offset != bad {
				return nil
			}
			if writes++; writes < 2 {
				return nil // the first write of the block is good
			}
			if redirect >= 0 {
				r.Offset = redirect
				return nil
			}
			r.Offset = testDevice - 4096 // where the workload does not look
			return nil
		})
		w := workload(RandWrite)
		w.Verify, w.Size, w.Runtime = true, 64<<10, 300*time.Millisecond // each of 16 blocks many times
		if _, err := Run(context.Background(), e, w, Placement{}); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: got %v, after %d writes of the block", name, err, writes)
		}
	}
}

func TestFailedRequestsEndTheRun(t *testing.T) {
	e, dev := serve(t, "failing")
	dev.OnSubmit(func(r *blockdev.Request) error {
		if r.Offset == 8192 {
			return os.ErrInvalid
		}
		return nil
	})
	_, err := Run(context.Background(), e, workload(Read), Placement{})
	if !errors.Is(err, frontend.ErrIO) || !strings.Contains(err.Error(), "offset 8192 ") {
		t.Errorf("got %v", err)
	}
}

func TestInterrupt(t *testing.T) {
	e, _ := serve(t, "memory")
	ctx, cancel := context.WithCancel(context.Background())
	w := workload(RandRead)
	w.Runtime = time.Hour
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := Run(ctx, e, w, Placement{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFillLeavesNoHole(t *testing.T) {
	e, _ := serve(t, "memory")
	if err := Fill(context.Background(), e, 0, Placement{}); err != nil {
		t.Fatal(err)
	}
	d, err := frontend.Open(context.Background(), e.Socket, frontend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	b := make([]byte, 4096)
	for off := int64(0); off < testDevice; off += int64(len(b)) {
		if _, err := d.Queue(0).ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		if allZero(b[:512]) {
			t.Fatalf("zeros at %d", off)
		}
	}
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
