package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"sealblk/bench"
)

var resultHead = []string{"TARGET", "WORKLOAD", "IOPS", "MB/S", "P50 US", "P99 US", "P99.9 US", "MAX US", "SERVER CPU US/IO", "FRONT-END CPU US/IO", "BUSY"}

func resultRow(r *bench.Result) []string {
	return []string{
		r.Target, r.Workload, fmt.Sprintf("%.0f", r.IOPS), fmt.Sprintf("%.1f", r.MBps),
		micros(r.LatencyUs.P50), micros(r.LatencyUs.P99), micros(r.LatencyUs.P999), micros(r.LatencyUs.Max),
		microsOrDash(r.ServerCPU), micros(r.FrontendCPU), fmt.Sprintf("%.0f%%", 100*r.FrontendBusy),
	}
}

func (a *app) printResults(c *cli.Context, results []*bench.Result) error {
	p := a.printer(c)
	if !p.json && c.String("format") == "go" {
		return bench.WriteGoFormat(p.w, results)
	}
	rows := make([][]string, len(results))
	for i, r := range results {
		rows[i] = resultRow(r)
	}
	if err := p.list(results, resultHead, rows); err != nil || p.json {
		return err
	}
	for _, r := range results {
		if r.Explain == nil {
			continue
		}
		if err := printExplanation(p.w, r); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printCompared(c *cli.Context, all []*bench.Compared) error {
	p := a.printer(c)
	if !p.json && c.String("format") == "go" {
		var samples []*bench.Result
		for _, c := range all {
			samples = append(samples, c.Samples...)
		}
		return bench.WriteGoFormat(p.w, samples)
	}
	rows := make([][]string, len(all))
	for i, c := range all {
		rows[i] = []string{
			c.Target, c.Workload, spreadOf(c.Spreads, "iops", 0), spreadOf(c.Ratios, "iops", 3),
			spreadOf(c.Spreads, "p50_us", 2), spreadOf(c.Ratios, "p50_us", 3),
			spreadOf(c.Spreads, "server_cpu_us_per_io", 2), spreadOf(c.Ratios, "server_cpu_us_per_io", 3), fmt.Sprintf("%.1f", c.MBps),
		}
	}
	return p.list(all, []string{"TARGET", "WORKLOAD", "IOPS", "RATIO", "P50 US", "RATIO", "SERVER CPU US/IO", "RATIO", "MB/S"}, rows)
}

// spreadOf shows a median and, in brackets, the least and the largest.
func spreadOf(m map[string]bench.Spread, name string, digits int) string {
	s, ok := m[name]
	if !ok {
		return "-"
	}
	return spreadText(s, digits)
}

func spreadText(s bench.Spread, digits int) string {
	f := func(v float64) string { return strconv.FormatFloat(v, 'f', digits, 64) }
	return fmt.Sprintf("%s [%s..%s]", f(s.Median), f(s.Min), f(s.Max))
}

func micros(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

func microsOrDash(v *float64) string {
	if v == nil {
		return "-"
	}
	return micros(*v)
}

// showProgress has a plan draw a bar on stderr, if that is a terminal. The function
// removes it.
func (a *app) showProgress(p *bench.Plan) (done func()) {
	if !isTerminal(a.out.err) {
		return func() {}
	}
	bar := progressbar.NewOptions(1, progressbar.OptionSetWriter(a.out.err), progressbar.OptionClearOnFinish(),
		progressbar.OptionShowCount(), progressbar.OptionSetWidth(20), progressbar.OptionSetPredictTime(false), progressbar.OptionFullWidth())
	p.Started = func(s bench.Step) {
		bar.ChangeMax(s.Of)
		bar.Describe(s.Target + " " + s.What)
		bar.Set(s.Number) //nolint:errcheck // a bar that cannot be drawn is not missed
	}
	return func() { bar.Clear() } //nolint:errcheck // nor one that stays
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
