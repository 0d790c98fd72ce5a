package bench

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"
)

// Report is results on a page.
type Report struct {
	Machine Machine
	Date    time.Time
	// Command is how the results were made.
	Command string
	// Sources are the files that they were read from; none if they were just made.
	Sources []string
	Results []*Result
}

//go:embed report.html
var reportHTML string

var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"number": func(v float64, digits int) string { return fmt.Sprintf("%.*f", digits, v) },
	"value":  func(p *float64) float64 { return *p },
}).Parse(reportHTML))

// section is what the page says about one workload.
type section struct {
	Workload string
	Results  []*Result
	// Throughput and Latency are pictures.
	Throughput, Latency template.HTML
}

// overhead is an encrypted target beside the same one plain.
type overhead struct {
	Workload, Encrypted, Plain string
	IOPS, P50                  float64
	CPU                        *float64
}

// WriteHTML writes a page that needs nothing else: tables, and plots in SVG.
func (r *Report) WriteHTML(w io.Writer) error {
	page := struct {
		*Report
		When      string
		Sections  []section
		Overheads []overhead
		Ratios    template.HTML
	}{Report: r, When: r.Date.UTC().Format("2006-01-02 15:04 UTC"), Overheads: overheads(r.Results)}
	for _, results := range byWorkload(r.Results) {
		s, err := newSection(results)
		if err != nil {
			return err
		}
		page.Sections = append(page.Sections, s)
	}
	var err error
	if page.Ratios, err = plotRatios(page.Overheads); err != nil {
		return err
	}
	if err := reportTemplate.Execute(w, page); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func newSection(results []*Result) (s section, err error) {
	s = section{Workload: results[0].Workload, Results: results}
	if s.Throughput, err = plotThroughput(results); err != nil {
		return s, err
	}
	s.Latency, err = plotLatency(results)
	return s, err
}

// byWorkload groups results in the order in which workloads first appear.
func byWorkload(results []*Result) (groups [][]*Result) {
	at := map[string]int{}
	for _, r := range results {
		i, known := at[r.Workload]
		if !known {
			i = len(groups)
			at[r.Workload] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], r)
	}
	return groups
}

// plainName is the target that an encrypted one is compared with.
func plainName(name string) (plain string, encrypted bool) {
	base, program, _ := strings.Cut(name, "@")
	switch {
	case base == "qsd-luks":
		plain = "qsd-raw"
	case strings.HasSuffix(base, "-encrypted"):
		plain = strings.TrimSuffix(base, "-encrypted")
	default:
		return "", false
	}
	if program != "" {
		plain += "@" + program
	}
	return plain, true
}

// overheads are the encrypted targets whose plain one is there too.
func overheads(results []*Result) (all []overhead) {
	for _, group := range byWorkload(results) {
		for _, r := range group {
			name, encrypted := plainName(r.Target)
			i := slices.IndexFunc(group, func(o *Result) bool { return o.Target == name })
			if !encrypted || i < 0 {
				continue
			}
			all = append(all, newOverhead(r, group[i]))
		}
	}
	return all
}

func newOverhead(r, plain *Result) overhead {
	o := overhead{
		Workload: r.Workload, Encrypted: r.Target, Plain: plain.Target,
		IOPS: quotient(r.IOPS, plain.IOPS), P50: quotient(r.LatencyUs.P50, plain.LatencyUs.P50),
	}
	if r.ServerCPU != nil && plain.ServerCPU != nil {
		cpu := quotient(*r.ServerCPU, *plain.ServerCPU)
		o.CPU = &cpu
	}
	return o
}
