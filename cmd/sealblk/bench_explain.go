package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"sealblk/bench"
	collector "sealblk/bench/explain"
)

// checkExplain tells early what the collector would fail with.
func checkExplain(wanted bool, format string) error {
	if !wanted {
		return nil
	}
	if format == "go" {
		return usagef("--explain has no place in --format go")
	}
	if err := collector.Supported(); err != nil {
		return fmt.Errorf("--explain: %w", err)
	}
	return nil
}

// explanation prints where a server's time went.
type explanation struct {
	*bench.Explanation
	w *tabwriter.Writer
}

// printExplanation prints the tables of one result.
func printExplanation(w io.Writer, r *bench.Result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	p := explanation{r.Explain, tw}
	fmt.Fprintf(tw, "\n%s %s: where the server's time went\n", r.Target, r.Workload)
	p.threads()
	p.code()
	p.calls()
	p.latencies()
	if err := tw.Flush(); err != nil {
		return err
	}
	return p.notes(w)
}

// leastShown is the share of the interval below which a thread is not shown.
const leastShown = 0.001

func (p explanation) threads() {
	writeRow(p.w, []string{"", "THREAD", "USER", "OF IT CRYPTO", "SYSTEM", "WAITING", "ASLEEP", "SWITCHES", "PREEMPTED", "WAKE-UPS", "FAULTS"})
	rest := collector.Thread{}
	var hidden int
	for _, t := range p.Threads {
		if !p.shown(&t) {
			hidden++
			rest.Add(&t)
			continue
		}
		p.thread(threadName(&t), &t)
	}
	if hidden > 0 {
		p.thread(fmt.Sprintf("%d others", hidden), &rest)
	}
}

func (p explanation) shown(t *collector.Thread) bool {
	return t.OnCPU()+t.WaitingMs >= leastShown*p.IntervalMs
}

func threadName(t *collector.Thread) string { return fmt.Sprintf("%s %d", t.Name, t.TID) }

func (p explanation) thread(name string, t *collector.Thread) {
	writeRow(p.w, []string{
		"", name, p.share(t.UserMs), p.share(t.CryptoMs), p.share(t.SystemMs), p.share(t.WaitingMs), p.share(t.AsleepMs),
		count(t.Voluntary), count(t.Involuntary), count(t.Wakeups), count(t.Faults),
	})
}

// share of the interval.
func (p explanation) share(ms float64) string { return percent(ms / p.IntervalMs) }

func percent(share float64) string { return fmt.Sprintf("%.1f%%", 100*share) }

func count(n uint64) string { return strconv.FormatUint(n, 10) }

// perRequest is in microseconds.
func (p explanation) perRequest(ms float64) string {
	if p.Requests == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", 1e3*ms/float64(p.Requests))
}

func (p explanation) code() {
	writeRow(p.w, nil)
	writeRow(p.w, []string{"", "OWN CODE", "SHARE OF TIME", "SHARE OF USER", "US/IO", "SAMPLES"})
	for _, c := range p.Code {
		writeRow(p.w, []string{"", c.Name, p.share(c.Ms), percent(c.Share), p.perRequest(c.Ms), count(c.Samples)})
	}
}

// calls are those of the threads that are shown.
func (p explanation) calls() {
	writeRow(p.w, nil)
	writeRow(p.w, []string{"", "THREAD", "SYSTEM CALL", "CALLS", "ON CPU", "US/IO", "MEAN US", "P99 US", "ASLEEP", "WAITING"})
	for _, t := range p.Threads {
		if !p.shown(&t) {
			continue
		}
		for _, c := range t.Calls {
			if c.OnCPUMs+c.AsleepMs+c.WaitingMs >= leastShown/10*p.IntervalMs {
				p.call(threadName(&t), &c)
			}
		}
	}
}

func (p explanation) call(thread string, c *collector.Call) {
	writeRow(p.w, []string{
		"", thread, c.Name, count(c.Ran.Count), p.share(c.OnCPUMs), p.perRequest(c.OnCPUMs), micros(c.Ran.Mean), micros(c.Ran.P99),
		p.share(c.AsleepMs), p.share(c.WaitingMs),
	})
}

func (p explanation) latencies() {
	writeRow(p.w, nil)
	writeRow(p.w, []string{"", "LATENCY", "COUNT", "MEAN US", "P50 US", "P99 US", "MAX US"})
	for _, l := range []struct {
		name string
		of   collector.Latency
	}{{"wake-up", p.Wakeup}, {"device", p.Device}} {
		writeRow(p.w, []string{"", l.name, count(l.of.Count), micros(l.of.Mean), micros(l.of.P50), micros(l.of.P99), micros(l.of.Max)})
	}
}

func (p explanation) notes(w io.Writer) error {
	o := p.Overhead
	_, err := fmt.Fprintf(w, "\n  The collector: IOPS with it %s of those without, server's CPU time per request %s (%d rounds of each in turn)\n",
		spreadText(o.IOPS, 3), spreadText(o.ServerCPU, 3), o.Rounds)
	if err == nil && p.Lost > 0 {
		_, err = fmt.Fprintf(w, "  %d events found no place in the collector's tables: the figures are incomplete\n", p.Lost)
	}
	return err
}
