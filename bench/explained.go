package bench

import (
	"context"
	"time"

	"sealblk/bench/explain"
)

// Explanation is where the time of a server's processes went.
type Explanation struct {
	explain.Report
	// Requests were completed meanwhile.
	Requests uint64   `json:"requests"`
	Overhead Overhead `json:"overhead"`
}

// Overhead is what the collector itself costs: the ratios of what was measured with it
// to what was measured without, in turn.
type Overhead struct {
	Rounds    int    `json:"rounds"`
	IOPS      Spread `json:"iops"`
	ServerCPU Spread `json:"server_cpu_us_per_io"`
}

// explainRounds are with the collector, and as many without.
const explainRounds = 3

// RunExplained is Run in rounds, without and with a collector in the kernel. The result
// is the median of the rounds without; its Explain is of the round with the median of
// IOPS of the others.
func RunExplained(ctx context.Context, e Endpoint, w Workload, p Placement) (*Result, error) {
	var without, with []*Result
	for range explainRounds {
		for _, s := range []struct {
			watched bool
			samples *[]*Result
		}{{false, &without}, {true, &with}} {
			r, err := runOnce(ctx, e, w, p, s.watched)
			if err != nil {
				return nil, err
			}
			*s.samples = append(*s.samples, r)
		}
	}
	plain, explained := compare(without, without), compare(with, without)
	r := plain.Result
	r.Explain = explained.Explain
	r.Explain.Overhead = Overhead{explainRounds, explained.Ratios["iops"], explained.Ratios["server_cpu_us_per_io"]}
	return &r, nil
}

// collect attaches a collector to the server's processes.
func (r *rig) collect(pids []int) (err error) {
	if r.explain {
		r.collector, err = explain.Watch(pids)
	}
	return err
}

// collectBetween has it count while the workload is measured.
func (r *rig) collectBetween(from time.Time, d time.Duration) error {
	if r.collector == nil {
		return nil
	}
	return r.collector.Between(from, from.Add(d))
}

// collected takes what it has counted.
func (r *rig) collected() error {
	if r.collector == nil {
		return nil
	}
	report, err := r.collector.Report()
	if err != nil {
		return err
	}
	r.explanation = &Explanation{Report: *report}
	return nil
}

// endCollector takes it out of the kernel.
func (r *rig) endCollector() error {
	if r.collector == nil {
		return nil
	}
	c := r.collector
	r.collector = nil
	return c.Close()
}
