package main

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"sealblk/bench"
)

func (a *app) benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "measure vhost-user-blk servers: this one plain and encrypted, others, or any socket",
		Subcommands: []*cli.Command{a.benchRunCommand(), a.benchCompareCommand(), a.benchReportCommand(), a.benchTargetsCommand(), a.benchStormCommand()},
	}
}

// workloadFlags say what is done to each target.
func workloadFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "rw", Usage: "`WORKLOAD`: " + strings.Join(bench.Patterns, ", ") + "; several with commas", Value: cli.NewStringSlice(bench.RandRead)},
		&cli.StringSliceFlag{Name: "bs", Usage: "block `SIZE` of each request; several with commas", Value: cli.NewStringSlice("4k")},
		&cli.StringSliceFlag{Name: "iodepth", Usage: "requests `N` in flight on each queue; several with commas", Value: cli.NewStringSlice("32")},
		&cli.IntFlag{Name: "queues", Usage: "virtqueues `N`, each driven by a thread", Value: 1},
		&cli.StringFlag{Name: "runtime", Usage: "`TIME` to measure for, such as 3s", Value: "3s"},
		&cli.StringFlag{Name: "ramp", Usage: "`TIME` to run before that", Value: "200ms"},
		&cli.StringFlag{Name: "size", Usage: "use the first `SIZE` of the device; servers that are started get one of this size (1G)", DefaultText: "the whole device"},
		&cli.IntFlag{Name: "rwmixread", Usage: "`PERCENT` of reads in randrw", Value: 70},
		&cli.Uint64Flag{Name: "seed", Usage: "`N` that random offsets begin with", Value: 1},
		&cli.BoolFlag{Name: "verify", Usage: "write all blocks first, with stamps and checksums, and check all that is read; costs time"},
		&cli.BoolFlag{Name: "poll", Usage: "spin for completions; --poll=false sleeps until the server notifies", Value: true},
		&cli.BoolFlag{Name: "indirect", Usage: "put each request's descriptors into a table of its own, as Linux guests do"},
		&cli.BoolFlag{Name: "pin", Usage: "bind server and front-end to different CPUs, if there are enough", Value: true},
	}
}

func formatFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "format", Usage: "`FORMAT` of the results: table, or go for benchstat", Value: "table"},
	}
}

// serverFlags say how servers are started.
func serverFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "dir", Usage: "`DIR` on a disk for the targets that use direct I/O (default: $TMPDIR, or the current one)"},
		&cli.StringFlag{Name: "peer-dir", Usage: "`DIR` for the files of other servers", DefaultText: "/dev/shm"},
		&cli.IntFlag{Name: "sector-size", Usage: "data unit `N` of our encryption: 512 or 4096", Value: 4096},
		&cli.Int64Flag{Name: "poll-max-ns", Usage: "nanoseconds `N` that servers poll before they sleep; -1: their defaults", Value: -1},
	}
}

func (a *app) benchRunCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "run workloads against one or more servers",
		Description: "Starts each target's server on new data in a temporary place, fills it, and drives it from a\n" +
			"polling front-end; see \"bench targets\". With --socket it drives a server that runs already:\n" +
			"THERE, WRITE WORKLOADS, --verify AND --prefill DESTROY THE DATA ON THE DISK; reads do not.\n" +
			"A disk that was never written may read as zeros without any decryption: use --prefill.\n" +
			"With --explain an eBPF collector tells where the time of the server's threads goes. Each workload\n" +
			"is then run six times, without and with the collector in turn; the results are without.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "socket", Usage: "`PATH` of the socket of a server that runs already"},
			&cli.StringSliceFlag{Name: "target", Usage: "`NAME` of a target, several with commas; NAME@PROGRAM is another build of ours", Value: cli.NewStringSlice("memory", "memory-encrypted")},
			&cli.BoolFlag{Name: "prefill", Usage: "write the whole device of --socket before the first workload"},
			&cli.BoolFlag{Name: "explain", Usage: "tell where the server's time goes: code, system calls, waiting, wake-ups, device (takes root)"},
		}, formatFlags(), workloadFlags(), serverFlags()),
		Action: a.benchRun,
	}
}

func (a *app) benchRun(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	plan, err := benchPlan(c)
	if err != nil {
		return err
	}
	names := c.StringSlice("target")
	if path := c.String("socket"); path != "" {
		if c.IsSet("target") {
			return usagef("--socket and --target exclude each other")
		}
		names = []string{"socket:" + path}
	}
	if plan.Targets, err = benchTargets(names); err != nil {
		return err
	}
	if err := checkExplain(c.Bool("explain"), c.String("format")); err != nil {
		return err
	}
	plan.Prefill, plan.Explain = c.Bool("prefill"), c.Bool("explain")
	done := a.showProgress(plan)
	results, err := plan.Run(c.Context)
	done()
	if len(results) == 0 {
		return err
	}
	return errors.Join(err, a.printResults(c, results))
}

func (a *app) benchCompareCommand() *cli.Command {
	return &cli.Command{
		Name: "compare", Usage: "run workloads against servers in turn, and print the ratios", ArgsUsage: "TARGET TARGET...",
		Description: "TARGET is a name from \"bench targets\", NAME@PROGRAM for another build of ours, or socket:PATH for\n" +
			"a server that runs already: THERE, WRITE WORKLOADS AND --verify DESTROY THE DATA ON THE DISK.\n" +
			"All servers are started; then each round measures each in turn. Printed are medians of the\n" +
			"rounds with the least and the largest; a ratio is that of a target's median to the first\n" +
			"target's, with the least and the largest ratio within a round.",
		Flags: slices.Concat([]cli.Flag{
			&cli.IntFlag{Name: "rounds", Usage: "`N` rounds", Value: 5},
			&cli.BoolFlag{Name: "fresh", Usage: "start servers anew for each round: else each keeps the memory it got at its start, and on tmpfs the first fares worse"},
		}, formatFlags(), workloadFlags(), serverFlags()),
		Action: a.benchCompare,
	}
}

func (a *app) benchCompare(c *cli.Context) error {
	if c.NArg() < 2 {
		return usagef("%s: give two or more targets: usage: %s", c.Command.HelpName, usageLine(c))
	}
	if n := c.Int("rounds"); n < 1 {
		return usagef("--rounds %d: use 1 or more", n)
	}
	plan, err := benchPlan(c)
	if err != nil {
		return err
	}
	if plan.Targets, err = benchTargets(c.Args().Slice()); err != nil {
		return err
	}
	done := a.showProgress(plan)
	all, err := plan.Compare(c.Context, c.Int("rounds"), c.Bool("fresh"))
	done()
	if len(all) == 0 {
		return err
	}
	return errors.Join(err, a.printCompared(c, all))
}

func benchTargets(names []string) ([]*bench.Target, error) {
	var all []*bench.Target
	for _, name := range names {
		t, err := bench.FindTarget(name)
		if err != nil {
			return nil, usagef("%v: see sealblk bench targets", err)
		}
		all = append(all, t)
	}
	return all, nil
}

// benchPlan is what the flags of workloads and servers say.
func benchPlan(c *cli.Context) (*bench.Plan, error) {
	w, err := benchWorkload(c)
	if err != nil {
		return nil, err
	}
	h, err := benchHost(c, w)
	if err != nil {
		return nil, err
	}
	p := &bench.Plan{Host: *h, Pin: c.Bool("pin")}
	if c.Command.Name == "report" && !c.IsSet("rw") && !c.IsSet("bs") && !c.IsSet("iodepth") {
		p.Workloads = bench.Standard(*w)
		return p, nil
	}
	for _, rw := range c.StringSlice("rw") {
		for _, bs := range c.StringSlice("bs") {
			for _, depth := range c.StringSlice("iodepth") {
				if err := addWorkload(p, *w, rw, bs, depth); err != nil {
					return nil, err
				}
			}
		}
	}
	return p, nil
}

func addWorkload(p *bench.Plan, w bench.Workload, rw, bs, depth string) error {
	size, err := parseSize(bs)
	if err != nil {
		return err
	}
	w.RW, w.BlockSize = rw, int(size)
	if w.IODepth, err = strconv.Atoi(depth); err != nil {
		return usagef("--iodepth %q: give a number", depth)
	}
	if err := w.Check(); err != nil {
		return usagef("%v", err)
	}
	p.Workloads = append(p.Workloads, w)
	return nil
}

func benchWorkload(c *cli.Context) (*bench.Workload, error) {
	w := &bench.Workload{
		Queues: c.Int("queues"), ReadMix: c.Int("rwmixread"), Seed: c.Uint64("seed"),
		Verify: c.Bool("verify"), Polling: c.Bool("poll"), Indirect: c.Bool("indirect"),
	}
	var err error
	if w.Runtime, err = benchTime(c, "runtime"); err != nil {
		return nil, err
	}
	if w.Ramp, err = benchTime(c, "ramp"); err != nil {
		return nil, err
	}
	if s := c.String("size"); s != "" {
		w.Size, err = parseSize(s)
	}
	return w, err
}

// benchTime reads a time; a plain number is in seconds, as fio has it.
func benchTime(c *cli.Context, flag string) (time.Duration, error) {
	s := c.String(flag)
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, usagef("--%s %q: give a time such as 3s or 500ms", flag, s)
	}
	return d, nil
}

func benchHost(c *cli.Context, w *bench.Workload) (*bench.Host, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &bench.Host{
		Program: program, Directory: c.String("dir"), PeerDirectory: c.String("peer-dir"), Size: w.Size,
		SectorSize: c.Int("sector-size"), Queues: w.Queues, PollMaxNs: c.Int64("poll-max-ns"),
	}
	if h.SectorSize != 512 && h.SectorSize != 4096 {
		return nil, usagef("--sector-size %d: use 512 or 4096", h.SectorSize)
	}
	if h.Directory == "" {
		h.Directory = os.Getenv("TMPDIR")
	}
	if h.Directory == "" {
		h.Directory = "."
	}
	return h, nil
}

func (a *app) benchTargetsCommand() *cli.Command {
	return &cli.Command{
		Name: "targets", Usage: "list the servers that can be started, and what this host lacks for them",
		Flags:  serverFlags(),
		Action: a.benchListTargets,
	}
}

// targetRow is a target in a listing.
type targetRow struct {
	Name      string `json:"name"`
	About     string `json:"about"`
	Encrypted bool   `json:"encrypted"`
	Available bool   `json:"available"`
	Missing   string `json:"missing"`
}

func (a *app) benchListTargets(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	h, err := benchHost(c, &bench.Workload{})
	if err != nil {
		return err
	}
	var list []targetRow
	var rows [][]string
	for _, t := range bench.Targets() {
		r := targetRow{Name: t.Name, About: t.About, Encrypted: t.Encrypted, Available: true}
		if err := t.Missing(h); err != nil {
			r.Available, r.Missing = false, oneLine(err.Error())
		}
		list = append(list, r)
		rows = append(rows, []string{r.Name, r.About, orDash(r.Missing)})
	}
	return a.printer(c).list(list, []string{"TARGET", "WHAT IT IS", "MISSING"}, rows)
}
