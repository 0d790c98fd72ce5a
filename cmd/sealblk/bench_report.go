package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"sealblk/bench"
	"sealblk/internal/atomicfile"
)

func (a *app) benchReportCommand() *cli.Command {
	flags := slices.Concat([]cli.Flag{
		&cli.StringFlag{Name: "html", Usage: "`FILE` to write the page to"},
		&cli.StringSliceFlag{Name: "from", Usage: "show the results in `FILE`, that run or compare printed with --output json; several with commas"},
		&cli.StringSliceFlag{Name: "target", Usage: "`NAME` of a target, several with commas", DefaultText: "all that this host can start"},
	}, workloadFlags(), serverFlags())
	for _, f := range flags {
		if s, ok := f.(*cli.StringFlag); ok && s.Name == "runtime" {
			s.Value = "1s"
		}
	}
	return &cli.Command{
		Name: "report", Usage: "write results with plots to a page that needs nothing else",
		Description: "Without --from it runs a standard set of workloads against each target that this host can start,\n" +
			"two minutes or so; --rw, --bs and --iodepth choose others.",
		Flags:  flags,
		Action: a.benchReport,
	}
}

func (a *app) benchReport(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	if c.String("html") == "" {
		return usagef("which file? use --html FILE")
	}
	if err := writable(c.String("html")); err != nil {
		return fmt.Errorf("write report: %w: choose another place with --html", err)
	}
	r := &bench.Report{Machine: bench.ThisMachine(version), Date: time.Now(), Command: "sealblk " + strings.Join(os.Args[1:], " "), Sources: c.StringSlice("from")}
	var err error
	if len(r.Sources) > 0 {
		r.Results, err = readResults(r.Sources)
	} else {
		r.Results, err = a.benchStandard(c)
	}
	if err != nil {
		return err
	}
	var page strings.Builder
	if err := r.WriteHTML(&page); err != nil {
		return err
	}
	if err := atomicfile.Write(c.String("html"), []byte(page.String()), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return a.printer(c).done(map[string]any{"html": c.String("html"), "results": len(r.Results)}, "%d results in %s", len(r.Results), c.String("html"))
}

// writable tells whether a file can be made, or replaced, before minutes are spent on what
// would be in it.
func writable(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return &os.PathError{Op: "open", Path: path, Err: unix.EISDIR}
	}
	dir := filepath.Dir(path)
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return nil
}

func readResults(files []string) (all []*bench.Result, err error) {
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read results: %w", err)
		}
		var some []*bench.Result
		if err := json.Unmarshal(b, &some); err != nil {
			return nil, fmt.Errorf("read results: %s: %w: give a file that bench run --output json wrote", name, err)
		}
		if slices.ContainsFunc(some, func(r *bench.Result) bool { return r == nil || r.Target == "" || r.Workload == "" }) {
			return nil, fmt.Errorf("read results: %s: not what bench run --output json writes", name)
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return nil, errors.New("read results: there are none")
	}
	return all, nil
}

// benchStandard measures for a report. What this host cannot start is left out, and
// said.
func (a *app) benchStandard(c *cli.Context) ([]*bench.Result, error) {
	plan, err := benchPlan(c)
	if err != nil {
		return nil, err
	}
	if names := c.StringSlice("target"); len(names) > 0 {
		if plan.Targets, err = benchTargets(names); err != nil {
			return nil, err
		}
	} else {
		plan.Targets = a.startable(&plan.Host)
	}
	defer a.showProgress(plan)()
	return plan.Run(c.Context)
}

func (a *app) startable(h *bench.Host) (list []*bench.Target) {
	for _, t := range bench.Targets() {
		if err := t.Missing(h); err != nil {
			a.warn(fmt.Sprintf("%s is left out: %v", t.Name, err))
			continue
		}
		if t.Name != "null" { // it measures the harness
			list = append(list, &t)
		}
	}
	return list
}
