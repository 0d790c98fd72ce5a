package workload

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"

	"sealblk/bench"
)

// tolerance is how far two front-ends may be apart.
const tolerance = 0.15

// Agreement is one workload on the slow server by two front-ends.
type Agreement struct {
	Workload string       `json:"workload"`
	Bench    bench.Spread `json:"bench_iops"`
	Fio      bench.Spread `json:"fio_iops"`
	// BenchCPU and FioCPU are the share of the time for which the server had a CPU.
	BenchCPU bench.Spread `json:"bench_server_cpus"`
	FioCPU   bench.Spread `json:"fio_server_cpus"`
	// Ratio of ours to fio's: of the medians, and the least and largest in a round.
	Ratio bench.Spread `json:"ratio"`
	// Room is how many times as many requests fio does on a fast server: where it is
	// small fio itself is the bottleneck, and HasRoom is false.
	Room    float64 `json:"room"`
	HasRoom bool    `json:"has_room"`
	// Quiet: the server was the bottleneck, and had a CPU, in enough rounds.
	Quiet  bool `json:"quiet"`
	Rounds int  `json:"rounds"`
}

// judged tells whether the two must agree.
func (a *Agreement) judged() bool { return a.HasRoom && a.Quiet }

func (a *Agreement) agrees() bool { return math.Abs(a.Ratio.Median-1) <= tolerance }

func (a *Agreement) verdict() string {
	switch {
	case !a.HasRoom:
		return "fio is the bottleneck"
	case !a.Quiet:
		return "the machine is too busy"
	case a.agrees():
		return "agree"
	}
	return "DIFFER"
}

// AgreeReport is what Agree measured.
type AgreeReport struct {
	Machine     bench.Machine `json:"machine"`
	Accelerator string        `json:"accelerator"`
	Rounds      int           `json:"rounds"`
	Rows        []*Agreement  `json:"rows"`
}

// Check fails if a row that can be judged is out of tolerance, or none can.
func (r *AgreeReport) Check() error {
	judged := 0
	for _, row := range r.Rows {
		if !row.judged() {
			continue
		}
		judged++
		if !row.agrees() {
			return fmt.Errorf("%s: bench measures %.3f of what fio does: %w", row.Workload, row.Ratio.Median, ErrDisagree)
		}
	}
	if judged == 0 {
		return fmt.Errorf("no workload could be judged: %w", errNoResult)
	}
	return nil
}

// Write prints the report as a table.
func (r *AgreeReport) Write(w io.Writer) error {
	fmt.Fprintf(w, "bench and fio in a guest (%s), in turn on one encrypting server with the portable cipher, %d rounds\n%s\n", r.Accelerator, r.Rounds, r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "WORKLOAD\tBENCH IOPS\tSERVER CPU\tFIO IOPS\tSERVER CPU\tRATIO\t(LEAST..LARGEST)\tROOM\tVERDICT\t")
	for _, a := range r.Rows {
		fmt.Fprintf(t, "%s\t%.1f\t%.2f\t%.1f\t%.2f\t%.3f\t(%.3f..%.3f)\t%.1f\t%s\t\n", a.Workload, a.Bench.Median, a.BenchCPU.Median,
			a.Fio.Median, a.FioCPU.Median, a.Ratio.Median, a.Ratio.Min, a.Ratio.Max, a.Room, a.verdict())
	}
	return t.Flush()
}
