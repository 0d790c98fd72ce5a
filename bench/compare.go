package bench

import (
	"context"
	"errors"
	"math"
	"slices"
)

// Spread is a number that was measured in several rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Compared is a target beside the first one of a comparison, under one workload.
type Compared struct {
	// Result has the median of all rounds for each of Metrics, and for the rest what
	// the round with the median of IOPS has.
	Result
	Rounds int `json:"rounds"`
	// Spreads are over the rounds, by the names of Metrics.
	Spreads map[string]Spread `json:"spreads"`
	// Ratios to the first target: the quotient of the medians, and the least and
	// the largest quotient within a round. The quotient of the medians lies between.
	Ratios map[string]Spread `json:"ratios"`
	// Samples are the rounds themselves.
	Samples []*Result `json:"-"`
}

// metric is one number of a result.
type metric struct {
	name string
	of   func(*Result) *float64 // nil if it is not known
}

var metrics = []metric{
	{"iops", func(r *Result) *float64 { return &r.IOPS }},
	{"mbps", func(r *Result) *float64 { return &r.MBps }},
	{"p50_us", func(r *Result) *float64 { return &r.LatencyUs.P50 }},
	{"p99_us", func(r *Result) *float64 { return &r.LatencyUs.P99 }},
	{"p999_us", func(r *Result) *float64 { return &r.LatencyUs.P999 }},
	{"server_cpu_us_per_io", func(r *Result) *float64 { return r.ServerCPU }},
	{"frontend_cpu_us_per_io", func(r *Result) *float64 { return &r.FrontendCPU }},
}

// Compare runs each workload in so many rounds, and in each round on each target in
// turn, in another order than in the round before, so that what disturbs the machine
// disturbs all alike. All servers are started before, and those that are not measured
// have no front-end; fresh starts them anew for each round. The results are those of the
// first workload, in the order of the targets, then those of the next.
func (p *Plan) Compare(ctx context.Context, rounds int, fresh bool) (all []*Compared, err error) {
	c := comparison{plan: p, steps: len(p.Targets) * len(p.Workloads) * rounds, servers: make([]*Server, len(p.Targets))}
	defer func() { err = errors.Join(err, c.stopAll()) }()
	if !fresh {
		c.steps += len(p.Targets)
		if err := c.startAll(ctx); err != nil {
			return nil, err
		}
	}
	for _, w := range p.Workloads {
		samples, err := c.rounds(ctx, w, rounds, fresh)
		if err != nil {
			return all, err
		}
		for _, s := range samples {
			all = append(all, compare(s, samples[0]))
		}
	}
	return all, nil
}

// comparison is a Compare under way.
type comparison struct {
	plan        *Plan
	servers     []*Server // nil: not running
	place       Placement
	step, steps int
}

func (c *comparison) started(t *Target, what string) {
	if c.plan.Started != nil {
		c.plan.Started(Step{c.step, c.steps, t.Name, what})
	}
	c.step++
}

func (c *comparison) startAll(ctx context.Context) error {
	for i, t := range c.plan.Targets {
		c.started(t, "start")
		if err := c.start(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) start(ctx context.Context, i int) (err error) {
	c.servers[i], c.place, err = c.plan.ready(ctx, c.plan.Targets[i])
	return err
}

func (c *comparison) stop(i int) error {
	s := c.servers[i]
	c.servers[i] = nil
	if s == nil {
		return nil
	}
	return s.Close()
}

func (c *comparison) stopAll() error {
	var errs []error
	for i := range c.servers {
		errs = append(errs, c.stop(i))
	}
	return errors.Join(errs...)
}

// rounds returns the samples of each target.
func (c *comparison) rounds(ctx context.Context, w Workload, rounds int, fresh bool) ([][]*Result, error) {
	samples := make([][]*Result, len(c.servers))
	for round := range rounds {
		for _, i := range turns(len(c.servers), round) {
			r, err := c.one(ctx, i, w, fresh)
			if err != nil {
				return nil, err
			}
			samples[i] = append(samples[i], r)
		}
	}
	return samples, nil
}

// turns is the order of so many targets in a round. What a machine does to a run may
// depend on its place in the round and on the run before it: of twice as many rounds as
// there are targets, each target is twice in each place, and in every other round what
// followed a target goes before it.
func turns(targets, round int) []int {
	order := make([]int, targets)
	for place := range order {
		order[place] = (place + round/2) % targets
	}
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

func (c *comparison) one(ctx context.Context, i int, w Workload, fresh bool) (r *Result, err error) {
	c.started(c.plan.Targets[i], w.Name())
	if fresh {
		if err := c.start(ctx, i); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, c.stop(i)) }()
	}
	return Run(ctx, c.servers[i].Endpoint, w, c.place)
}

// compare sums up samples beside those of the first target.
func compare(samples, first []*Result) *Compared {
	c := &Compared{Rounds: len(samples), Spreads: map[string]Spread{}, Ratios: map[string]Spread{}, Samples: samples}
	iops, _ := values(samples, metrics[0])
	c.Result = *samples[nearest(iops, median(iops))]
	if c.ServerCPU != nil {
		c.ServerCPU = new(float64)
	}
	for _, m := range metrics {
		v, known := values(samples, m)
		if !known {
			continue
		}
		s := spread(v)
		c.Spreads[m.name] = s
		*m.of(&c.Result) = s.Median
		if base, known := values(first, m); known {
			c.Ratios[m.name] = ratio(v, base)
		}
	}
	return c
}

// values of a metric; not known if one is missing.
func values(samples []*Result, m metric) (v []float64, known bool) {
	for _, r := range samples {
		p := m.of(r)
		if p == nil {
			return nil, false
		}
		v = append(v, *p)
	}
	return v, true
}

func spread(v []float64) Spread { return Spread{median(v), slices.Min(v), slices.Max(v)} }

func ratio(v, base []float64) Spread {
	pairs := make([]float64, len(v))
	for i := range v {
		pairs[i] = quotient(v[i], base[i])
	}
	return Spread{quotient(median(v), median(base)), slices.Min(pairs), slices.Max(pairs)}
}

// quotient is 0 of nothing, for JSON knows no infinity.
func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

func nearest(v []float64, to float64) (best int) {
	for i := range v {
		if math.Abs(v[i]-to) < math.Abs(v[best]-to) {
			best = i
		}
	}
	return best
}
