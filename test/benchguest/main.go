// Command benchguest measures what encryption costs the programs of a guest, and holds
// the benchmark's figures against those of fio in that guest.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"sealblk/test/workload"
)

func main() {
	var o workload.Options
	flag.StringVar(&o.Program, "sealblk", "bin/sealblk", "the `program` to measure")
	flag.StringVar(&o.Backend, "backend", "tmpfs", "where the disks' data is: memory, tmpfs, or file, which is direct I/O in -dir")
	flag.StringVar(&o.Directory, "dir", os.TempDir(), "`directory` on a disk, for -backend file")
	flag.IntVar(&o.Rounds, "rounds", 3, "rounds")
	flag.BoolVar(&o.Quick, "quick", false, "take a fraction of the time; figures are rough")
	slow := flag.String("agree", "", "instead, compare fio in the guest with bench on this slow build of the `program`")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	o.Said = func(line string) { fmt.Fprintln(os.Stderr, line) }
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := show(ctx, o, *slow, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "benchguest:", err)
		os.Exit(1)
	}
}

func show(ctx context.Context, o workload.Options, slow string, asJSON bool) (err error) {
	if o.Rounds < 1 {
		return errors.New("-rounds: use 1 or more")
	}
	if o.Program, err = filepath.Abs(o.Program); err != nil {
		return err
	}
	if slow != "" {
		if slow, err = filepath.Abs(slow); err != nil {
			return err
		}
		r, err := workload.Agree(ctx, o, slow)
		if err != nil {
			return err
		}
		return errors.Join(printReport(r, asJSON), r.Check())
	}
	r, err := workload.Run(ctx, o)
	if err != nil {
		return err
	}
	return errors.Join(printReport(r, asJSON), r.Check())
}

func printReport(r workload.Printer, asJSON bool) error {
	if !asJSON {
		return r.Write(os.Stdout)
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
