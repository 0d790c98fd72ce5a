package explain

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const millisecond = 1_000_000

// nowhere knows no threads and no symbols.
func nowhere(int) (int, string)  { return 7, "x" }
func noSymbol(int, uint64) place { return place{CodeUnknown, CodeUnknown} }
func (r *raw) plain() *Report    { return r.report(nowhere, noSymbol) }

func interval(from, until uint64) *raw {
	return &raw{from: from * millisecond, until: until * millisecond, calls: map[callKey]rawCall{}}
}

func (r *raw) with(t rawThread) *raw {
	r.threads = map[uint32]rawThread{5: t}
	return r
}

// What is in progress at the end counts, with the part that lies inside.
func TestStatesInProgress(t *testing.T) {
	const m = millisecond
	for name, c := range map[string]struct {
		state rawThread
		want  Thread
	}{
		"runs":               {rawThread{Nr: inUser, Running: 1, Since: 12 * m}, Thread{UserMs: 8}},
		"ran all the time":   {rawThread{Nr: inUser, Running: 1, Since: 3 * m}, Thread{UserMs: 10}},
		"in a call":          {rawThread{Nr: 0, Running: 1, Since: 15 * m}, Thread{SystemMs: 5}},
		"sleeps in a call":   {rawThread{Nr: 0, Since: 5 * m, Slept: 1}, Thread{AsleepMs: 10}},
		"woken, not running": {rawThread{Nr: 0, Since: 12 * m, Slept: 1, Woken: 19 * m}, Thread{AsleepMs: 7, WaitingMs: 1}},
		"woken after":        {rawThread{Nr: 0, Since: 12 * m, Slept: 1, Woken: 25 * m}, Thread{AsleepMs: 8}},
		"preempted":          {rawThread{Nr: inUser, Since: 12 * m, Woken: 12 * m}, Thread{WaitingMs: 8}},
		"kernel thread":      {rawThread{Nr: inWorker, Running: 1, Since: 18 * m}, Thread{SystemMs: 2}},
		"sleeps in a fault":  {rawThread{Nr: inUser, Since: 12 * m, Slept: 1}, Thread{AsleepMs: 8}},
		"dead":               {rawThread{Nr: inUser, Dead: 1, Since: 12 * m}, Thread{}},
		"since later":        {rawThread{Nr: inUser, Running: 1, Since: 25 * m}, Thread{}},
		"with what was":      {rawThread{Nr: inUser, Running: 1, Since: 18 * m, User: rawTimes{OnCPU: 3 * m, Waiting: m}}, Thread{UserMs: 5, WaitingMs: 1}},
		"call with what was": {rawThread{Nr: 0, Running: 1, Since: 18 * m, Call: rawTimes{OnCPU: 3 * m, Asleep: m}}, Thread{SystemMs: 5, AsleepMs: 1}},
	} {
		got := interval(10, 20).with(c.state).plain().Total
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

// Calls add up by name over threads, and devices over CPUs.
func TestMerge(t *testing.T) {
	r := interval(0, 100)
	r.threads = map[uint32]rawThread{5: {Dead: 1}, 6: {Dead: 1}}
	a := rawCall{Count: 3, Times: rawTimes{OnCPU: 3 * millisecond, Asleep: millisecond}, Ns: 3 * millisecond, Max: 2 * millisecond}
	a.Ran[bucketOf(500_000)], a.Ran[bucketOf(2_000_000)] = 2, 1
	b := rawCall{Count: 1, Times: rawTimes{OnCPU: 9 * millisecond, Waiting: millisecond}, Ns: 9 * millisecond, Max: 9 * millisecond}
	b.Ran[bucketOf(9_000_000)] = 1
	r.calls = map[callKey]rawCall{{5, 0}: a, {6, 0}: b, {6, 1}: b, {6, 2}: {}}
	d := rawDevice{Count: 2, Bytes: 8192, Ns: 3000, Max: 2000}
	d.Latency[bucketOf(1000)], d.Latency[bucketOf(2000)] = 1, 1
	r.devices = []rawDevice{d, {}, d}
	out := r.plain()

	if len(out.Calls) != 2 || out.Calls[0].Name != "read" || out.Calls[1].Name != "write" {
		t.Fatalf("calls %+v", out.Calls)
	}
	c := out.Calls[0]
	if c.OnCPUMs != 12 || c.AsleepMs != 1 || c.WaitingMs != 1 || c.Ran.Count != 4 || c.Ran.Mean != 3000 || c.Ran.Max != 9000 {
		t.Errorf("read: %+v", c)
	}
	near(t, "p50 of read", c.Ran.P50, 500)
	near(t, "p99 of read", c.Ran.P99, 9000)
	if x := out.Threads[0]; x.TID != 6 || x.SystemMs != 18 || len(x.Calls) != 2 || out.Threads[1].SystemMs != 3 {
		t.Errorf("threads %+v", out.Threads)
	}
	if out.Total.SystemMs != 21 || out.Total.WaitingMs != 2 || out.IntervalMs != 100 {
		t.Errorf("total %+v", out.Total)
	}
	if out.Device.Count != 4 || out.DeviceBytes != 16384 || out.Device.Mean != 1.5 || out.Device.Max != 2 {
		t.Errorf("device %+v, %d bytes", out.Device, out.DeviceBytes)
	}
	near(t, "p50 of device", out.Device.P50, 1)
}

// near allows for the width of a bucket.
func near(t *testing.T, what string, v, want float64) {
	t.Helper()
	if math.Abs(v-want) > 0.07*want {
		t.Errorf("%s: %v, not %v", what, v, want)
	}
}

// A thread's time in its own code is divided as its samples are.
func TestCodeIsDivided(t *testing.T) {
	r := interval(0, 100)
	r.threads = map[uint32]rawThread{
		5: {Dead: 1, User: rawTimes{OnCPU: 80 * millisecond}},
		6: {Dead: 1, User: rawTimes{OnCPU: 10 * millisecond}},
		7: {Dead: 1, User: rawTimes{OnCPU: 10 * millisecond}},
	}
	r.samples = map[sampleKey]uint64{
		{IP: 1, TID: 5}: 2, {IP: 2, TID: 5}: 1, {IP: 3, TID: 5}: 1, {IP: 1, TID: 6}: 1, {TID: 6}: 1, {IP: 1, TID: 9}: 1,
	}
	places := []place{{}, {CodeCrypto, "a"}, {"vhost", "b"}, {CodeCrypto, "c"}}
	out := r.report(nowhere, func(_ int, ip uint64) place { return places[ip] })
	want := []Code{{CodeCrypto, 65, 0.65, 4}, {"vhost", 20, 0.2, 1}, {CodeUnseen, 10, 0.1, 0}, {CodeKernel, 5, 0.05, 1}}
	if diff := cmp.Diff(want, out.Code); diff != "" {
		t.Errorf("code: (-want +got)\n%s", diff)
	}
	if out.Total.CryptoMs != 65 || out.Threads[0].CryptoMs != 60 || out.Threads[0].Samples != 4 {
		t.Errorf("total %+v, threads %+v", out.Total, out.Threads)
	}
	if f := out.Functions; len(f) != 4 || f[0] != (Function{"a", CodeCrypto, 0.45}) {
		t.Errorf("functions %+v", f)
	}
}

func TestBuckets(t *testing.T) {
	for _, ns := range []uint64{0, 1, 7, 8, 9, 15, 16, 17, 1000, 4095, 4096, 1 << 35, 1<<36 - 1} {
		low, high := bucketRange(bucketOf(ns))
		if ns < low || ns > high || high-low > low/8 {
			t.Errorf("%d ns is in a bucket from %d to %d", ns, low, high)
		}
	}
	if i := bucketOf(1 << 40); i != buckets-1 {
		t.Errorf("what is too long is in bucket %d", i)
	}
	var h histogram
	if l := h.latency(); l != (Latency{}) {
		t.Errorf("of nothing: %+v", l)
	}
}
