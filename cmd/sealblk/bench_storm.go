package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"sealblk/keymgr/kmstest/simulated"
	"sealblk/keymgr/storm"
)

func (a *app) benchStormCommand() *cli.Command {
	return &cli.Command{
		Name: "kms-storm", Usage: "simulate hosts that power on together against a KMS with a limit",
		Description: "Without --hosts and --disks it runs two storms: a host with 1,000 disks, and a site of 100 such\n" +
			"hosts. What calls is this program's own code with the retry policy of exports; the KMS, which has a\n" +
			"limit, a latency, lost connections and an outage in the middle of the storm, is simulated, and so\n" +
			"is time: a site's minutes take seconds. The second table is the rate of calls over time.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "hosts", Usage: "`N` hosts", DefaultText: "1, then 100"},
			&cli.IntFlag{Name: "disks", Usage: "`N` disks of each host", DefaultText: "1000"},
			&cli.IntFlag{Name: "limit", Usage: "calls a second `N` that the KMS takes; 0: any number", Value: 750},
			&cli.Float64Flag{Name: "loss", Usage: "`PERCENT` of connections that are lost", Value: 1},
			&cli.StringFlag{Name: "outage", Usage: "`TIME` without the KMS, in the middle; 0s: none", Value: "30s"},
			&cli.StringFlag{Name: "spread", Usage: "`TIME` within which hosts begin to start disks", DefaultText: "0s for one host, 30s for more"},
			&cli.IntFlag{Name: "places", Usage: "calls `N` of a host at once; 0: any number, as it would be without the gate", Value: storm.Host().Places},
			&cli.IntFlag{Name: "attempts", Usage: "give a call up after `N` attempts; 0: by time, as the program does"},
			&cli.Uint64Flag{Name: "seed", Usage: "`N` that chance begins with", Value: 1},
		},
		Action: a.benchStorm,
	}
}

func (a *app) benchStorm(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	scenarios, err := stormScenarios(c)
	if err != nil {
		return err
	}
	var results []*storm.Result
	for _, s := range scenarios {
		r, err := storm.Run(s)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	return a.printStorms(c, results)
}

func stormScenarios(c *cli.Context) ([]storm.Scenario, error) {
	list := []storm.Scenario{storm.Host(), storm.Site()}
	if c.IsSet("hosts") || c.IsSet("disks") {
		one := storm.Host()
		one.Name = "own"
		if c.IsSet("hosts") {
			if one.Hosts = c.Int("hosts"); one.Hosts > 1 {
				one.Spread = storm.Site().Spread
			}
		}
		if c.IsSet("disks") {
			one.Disks = c.Int("disks")
		}
		list = []storm.Scenario{one}
	}
	for i := range list {
		if err := shapeStorm(c, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// shapeStorm applies the flags that are for all scenarios.
func shapeStorm(c *cli.Context, s *storm.Scenario) error {
	outage, err := stormTime(c, "outage")
	if err != nil {
		return err
	}
	if c.IsSet("spread") {
		if s.Spread, err = stormTime(c, "spread"); err != nil {
			return err
		}
	}
	if s.Places = c.Int("places"); s.Places < 0 {
		return usagef("--places %d: use 0 or more", s.Places)
	}
	if s.Retry.Attempts = c.Int("attempts"); s.Retry.Attempts < 0 {
		return usagef("--attempts %d: use 0 or more", s.Retry.Attempts)
	}
	s.KMS.Limit, s.KMS.Loss, s.KMS.Seed = c.Int("limit"), c.Float64("loss")/100, c.Uint64("seed")
	s.KMS.Outages = nil
	if err := s.Check(); err != nil {
		return usagef("%v", err)
	}
	if outage > 0 {
		middle := s.Middle()
		s.KMS.Outages = []simulated.Outage{{From: middle, To: middle + outage}}
	}
	return nil
}

func stormTime(c *cli.Context, name string) (time.Duration, error) {
	d, err := benchTime(c, name)
	if err == nil && d > time.Hour {
		err = usagef("--%s %q: give at most 1h", name, c.String(name))
	}
	return d, err
}

var stormHead = []string{"STORM", "DISKS", "UNWRAPPED", "GAVE UP", "ALL AFTER S", "LEAST S", "P50 S", "P99 S", "CALLS", "PER DISK", "PEAK/S", "THROTTLED", "LOST"}

func (a *app) printStorms(c *cli.Context, results []*storm.Result) error {
	p := a.printer(c)
	var rows [][]string
	for _, r := range results {
		rows = append(rows, []string{
			r.Scenario, strconv.Itoa(r.Disks), strconv.Itoa(r.Unwrapped), strconv.Itoa(r.GaveUp), tenths(r.AllSeconds), tenths(r.IdealSeconds),
			tenths(r.P50Seconds), tenths(r.P99Seconds), strconv.Itoa(r.Calls), fmt.Sprintf("%.2f", r.CallsPerDisk),
			strconv.Itoa(r.PeakPerSecond), strconv.Itoa(r.Throttled), strconv.Itoa(r.Lost),
		})
	}
	if err := p.list(results, stormHead, rows); err != nil || p.json {
		return err
	}
	fmt.Fprintln(p.w)
	return p.list(nil, []string{"STORM", "FROM S", "TO S", "CALLS/S", "PEAK/S", "TAKEN/S"}, rateRows(results))
}

// rateSteps is how many rows a storm's load is shown in at most.
const rateSteps = 12

func rateRows(results []*storm.Result) [][]string {
	var rows [][]string
	for _, r := range results {
		step := max((len(r.Offered)+rateSteps-1)/rateSteps, 1)
		for from := 0; from < len(r.Offered); from += step {
			to := min(from+step, len(r.Offered))
			rows = append(rows, []string{
				r.Scenario, strconv.Itoa(from), strconv.Itoa(to), mean(r.Offered[from:to]), strconv.Itoa(slices.Max(r.Offered[from:to])), mean(r.Taken[from:to]),
			})
		}
	}
	return rows
}

func mean(counts []int) string {
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return fmt.Sprintf("%.0f", float64(sum)/float64(len(counts)))
}

func tenths(s float64) string { return strconv.FormatFloat(s, 'f', 1, 64) }
