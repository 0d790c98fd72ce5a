package workload

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"sealblk/bench"
	"sealblk/test/guest"
)

// Printer is a report of this package.
type Printer interface{ Write(w io.Writer) error }

// Row is one job: its rate on the plain disk and on the encrypted one.
type Row struct {
	Job   string       `json:"job"`
	Unit  string       `json:"unit"`
	Off   bench.Spread `json:"plain"`
	On    bench.Spread `json:"encrypted"`
	Ratio bench.Spread `json:"ratio"`
	// Best is the largest ratio of all repeats.
	Best float64 `json:"best_ratio"`
}

// Report is what a Run measured.
type Report struct {
	Machine     bench.Machine `json:"machine"`
	Accelerator string        `json:"accelerator"`
	Backend     string        `json:"backend"`
	SectorSize  int           `json:"sector_size"`
	Rounds      int           `json:"rounds"`
	Quick       bool          `json:"quick"`
	Seconds     float64       `json:"seconds"`
	Rows        []Row         `json:"rows"`
}

func (r *run) report(accelerator string, took time.Duration) *Report {
	out := &Report{
		Machine: bench.ThisMachine("this tree"), Accelerator: accelerator, Backend: r.Backend, SectorSize: sectorSize,
		Rounds: r.Rounds, Quick: r.Quick, Seconds: took.Seconds(),
	}
	for _, p := range profiles {
		out.Rows = append(out.Rows, r.row(p.name(), p.unit()))
	}
	for _, s := range r.scale.steps() {
		out.Rows = append(out.Rows, r.row(s.name, s.unit))
	}
	return out
}

// middle is the median on either disk.
func middle(samples []sample) sample {
	var plain, encrypted []float64
	for _, s := range samples {
		plain, encrypted = append(plain, s[off]), append(encrypted, s[on])
	}
	return sample{median(plain), median(encrypted)}
}

func (r *run) row(name, unit string) Row {
	out := row(name, unit, r.samples[name])
	out.Best = r.best[name]
	return out
}

func row(name, unit string, samples []sample) Row {
	var plain, encrypted, ratios []float64
	for _, s := range samples {
		plain, encrypted = append(plain, s[off]), append(encrypted, s[on])
		ratios = append(ratios, s[on]/s[off])
	}
	r := Row{Job: name, Unit: unit, Off: spread(plain), On: spread(encrypted), Ratio: spread(ratios)}
	r.Ratio.Median = r.On.Median / r.Off.Median
	return r
}

func spread(v []float64) bench.Spread {
	return bench.Spread{Median: median(v), Min: slices.Min(v), Max: slices.Max(v)}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// leastRatio is what no disturbance takes all repeats of a job below.
const leastRatio = 0.2

// Check fails if a job was absurdly slower on the encrypted disk in every repeat.
func (r *Report) Check() error {
	for _, row := range r.Rows {
		if row.Best < leastRatio {
			return fmt.Errorf("%s: %.3f of plain at best: %w", row.Job, row.Best, ErrAbsurd)
		}
	}
	return nil
}

// Write prints the report as a table.
func (r *Report) Write(w io.Writer) error {
	fmt.Fprintf(w, "Encryption in a guest: %s, units of %d bytes, %d rounds, %.0f s\n%s\n", r.Backend, r.SectorSize, r.Rounds, r.Seconds, r.Machine)
	if r.Accelerator == guest.KVM {
		fmt.Fprintln(w, "KVM runs the guest.")
	} else {
		fmt.Fprintln(w, "The guest's CPU is emulated (TCG): only the ratios mean anything, and KVM's would be lower.")
	}
	if r.Quick {
		fmt.Fprintln(w, "A quick run: it shows that all works, the figures are rough.")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "JOB\tUNIT\tPLAIN\tENCRYPTED\tRATIO\t(LEAST..LARGEST)\t")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%.1f\t%.3f\t(%.3f..%.3f)\t\n", row.Job, row.Unit, row.Off.Median, row.On.Median, row.Ratio.Median, row.Ratio.Min, row.Ratio.Max)
	}
	return t.Flush()
}
