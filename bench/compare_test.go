package bench

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sealblk/blockdev"
)

func sampled(iops ...float64) (samples []*Result) {
	for i, v := range iops {
		cpu := 1e6 / v
		samples = append(samples, &Result{IOPS: v, MBps: v * 4096 / 1e6, ServerCPU: &cpu, Requests: uint64(i)})
	}
	return samples
}

func TestRatios(t *testing.T) {
	first, second := sampled(100, 300, 200), sampled(50, 100, 140)
	c := compare(second, first)
	want := Spread{0.5, 1.0 / 3, 0.7}
	if got := c.Ratios["iops"]; !near(got, want) {
		t.Errorf("ratio %+v, want %+v", got, want)
	}
	if got := c.Spreads["iops"]; got != (Spread{100, 50, 140}) {
		t.Errorf("spread %+v", got)
	}
	if c.IOPS != 100 || *c.ServerCPU != 1e4 || c.Requests != 1 || c.Rounds != 3 {
		t.Errorf("result %+v", c.Result)
	}
	if *second[1].ServerCPU != 1e4 || second[0].IOPS != 50 {
		t.Error("the samples were changed")
	}
	if got := compare(first, first).Ratios["server_cpu_us_per_io"]; got != (Spread{1, 1, 1}) {
		t.Errorf("the first target beside itself: %+v", got)
	}
}

func TestRatioWithoutServer(t *testing.T) {
	known, unknown := sampled(100), sampled(100)
	unknown[0].ServerCPU = nil
	for _, c := range []*Compared{compare(known, unknown), compare(unknown, known)} {
		if _, ok := c.Ratios["server_cpu_us_per_io"]; ok {
			t.Error("a ratio to what is not known")
		}
	}
}

// The quotient of the medians lies between the quotients of the rounds.
func TestRatioLiesWithinItsSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "rounds")
		number := rapid.SliceOfN(rapid.Float64Range(1, 1e6), n, n)
		r := ratio(number.Draw(t, "values"), number.Draw(t, "base"))
		if r.Median < r.Min*(1-1e-9) || r.Median > r.Max*(1+1e-9) {
			t.Fatalf("%+v", r)
		}
	})
}

func near(a, b Spread) bool {
	return math.Abs(a.Median-b.Median)+math.Abs(a.Min-b.Min)+math.Abs(a.Max-b.Max) < 1e-9
}

// A server that is made slower shows, and one that is not does not.
func TestCompareShowsASlowServer(t *testing.T) {
	fast, _ := serve(t, "fast")
	same, _ := serve(t, "same")
	slow, dev := serve(t, "slow")
	dev.OnSubmit(func(*blockdev.Request) error {
		time.Sleep(time.Millisecond) // more than a machine that is busy takes
		return nil
	})
	p := &Plan{Workloads: []Workload{workload(RandRead)}}
	for _, e := range []Endpoint{fast, same, slow} {
		p.Targets = append(p.Targets, &Target{Name: e.Name, socket: e.Socket})
	}
	steps := 0
	p.Started = func(s Step) {
		if s.Number != steps || s.Of != 3+3*3 {
			t.Errorf("step %+v, want number %d", s, steps)
		}
		steps++
	}
	// In a short run a busy machine may be what shows.
	for _, runtime := range []time.Duration{30 * time.Millisecond, 300 * time.Millisecond, 3 * time.Second} {
		p.Workloads[0].Runtime, steps = runtime, 0
		all, err := p.Compare(context.Background(), 3, false)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != 3 || all[2].Target != "slow" || len(all[2].Samples) != 3 {
			t.Fatalf("compared %+v", all)
		}
		same, slow := all[1].Ratios, all[2].Ratios
		if slow["iops"].Median <= 0.5 && slow["p50_us"].Median >= 2 && same["iops"].Max >= 0.5 {
			return
		}
		t.Logf("in %v: like server: %+v; slow server: %+v", runtime, same, slow)
	}
	t.Error("the slow server did not show, or the like one did")
}

// No target has an advantage by its place, nor by which other it follows more often
// than that follows it.
func TestTurnsAreBalanced(t *testing.T) {
	for targets := 1; targets <= 6; targets++ {
		places := map[[2]int]int{}
		follows := map[[2]int]int{}
		for round := range 2 * targets {
			order := turns(targets, round)
			for place, i := range order {
				places[[2]int{i, place}]++
				if place > 0 {
					follows[[2]int{order[place-1], i}]++
				}
			}
		}
		for i := range targets {
			for j := range targets {
				if n := places[[2]int{i, j}]; n != 2 {
					t.Errorf("%d targets: target %d is %d times in place %d", targets, i, n, j)
				}
				if a, b := follows[[2]int{i, j}], follows[[2]int{j, i}]; a != b {
					t.Errorf("%d targets: %d follows %d %d times, and goes before it %d times", targets, j, i, a, b)
				}
			}
		}
	}
}

func TestCompareFails(t *testing.T) {
	e, _ := serve(t, "good")
	p := &Plan{Workloads: []Workload{workload(RandRead)}, Targets: []*Target{{Name: "good", socket: e.Socket}, {Name: "bad", socket: e.Socket + "x"}}}
	if _, err := p.Compare(context.Background(), 2, true); err == nil {
		t.Error("compared with a server that does not listen")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.Targets = p.Targets[:1]
	if _, err := p.Compare(ctx, 2, false); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
