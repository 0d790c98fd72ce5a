package conformance_test

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealblk/vhost/blk"
	"sealblk/vhost/frontend"
)

// node is something for the collector to follow.
type node struct{ left, right *node }

func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{tree(depth - 1), tree(depth - 1)}
}

// TestCollectorDoesNotStopRequests runs the garbage collector without a pause beside a
// disk. The data path allocates nothing and so owes it nothing; what it may cost is the
// moment in which all threads stop, and a share of the processors.
func TestCollectorDoesNotStopRequests(t *testing.T) {
	const requests = 20000
	d := openDisk(t, serve(t, stacks["encrypted memory"](t), blk.Options{}), frontend.Options{Polling: true})
	q := d.Queue(0)
	slots, done := newSlots(t, q, 1, 4096), make([]*frontend.Request, 1)
	pump(t, q, slots, done, 1000)
	latencies := make([]time.Duration, requests)
	request := func() { pump(t, q, slots, done, 1) }
	// What else the machine does may delay requests for a while; one that waits for
	// collections does so every time.
	for range 5 {
		if p50, p99 := besideCollector(t, latencies, request); p50 <= time.Millisecond && p99 <= 20*time.Millisecond {
			return
		}
	}
	// The test, the worker and the collector share two processors, so a request may
	// have to wait for one; a collection of this heap takes some ten milliseconds, and
	// none may wait for that.
	t.Error("requests wait for the collector")
}

// besideCollector measures requests while the collector runs.
func besideCollector(t *testing.T, latencies []time.Duration, request func()) (p50, p99 time.Duration) {
	t.Helper()
	live := tree(18)
	var stop atomic.Bool
	var collector sync.WaitGroup
	collector.Go(func() {
		for !stop.Load() {
			runtime.GC()
		}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range latencies {
		start := time.Now()
		request()
		latencies[i] = time.Since(start)
	}
	runtime.ReadMemStats(&after)
	stop.Store(true)
	collector.Wait()
	runtime.KeepAlive(live)

	slices.Sort(latencies)
	cycles := after.NumGC - before.NumGC
	p50, p99 = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
	t.Logf("%d collections, %v of them with all threads stopped; requests: p50 %v, p99 %v, slowest %v",
		cycles, time.Duration(after.PauseTotalNs-before.PauseTotalNs), p50, p99, latencies[len(latencies)-1])
	if cycles < 5 {
		t.Errorf("the collector ran %d times: nothing was tried", cycles)
	}
	return p50, p99
}
