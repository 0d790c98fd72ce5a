package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"sealblk/vhost/conformance"
)

// commandPatience is how long the commands that restart or resize a back-end may
// take.
const commandPatience = 15 * time.Second

var errNotConformant = errors.New("the back-end does not conform")

func (a *app) conformanceCommand() *cli.Command {
	return &cli.Command{
		Name: "conformance", Usage: "hold a vhost-user-blk back-end to the specification",
		Description: "Runs a named case for each rule of the vhost-user and virtio-blk specifications against the\n" +
			"back-end that listens on a socket, this program's or any other, within 90 seconds.\n" +
			"WRITES TO THE DISK: its content is lost. It must have 16 MiB or more and no other user.\n" +
			"A failed case of kind \"must\" is a violation of the specification; one of kind \"house\" is an\n" +
			"expectation that goes beyond it. Exit code 1 if any case failed.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket", Usage: "`PATH` of the back-end's socket"},
			&cli.StringFlag{Name: "restart-command", Usage: "shell `CMD` that kills the back-end and starts it again on the same socket and disk"},
			&cli.StringFlag{Name: "resize-command", Usage: "shell `CMD` that makes the disk larger"},
			&cli.StringFlag{Name: "case", Usage: "run only cases whose name contains `TEXT`"},
		},
		Action: a.conformance,
	}
}

func (a *app) conformance(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	if c.String("socket") == "" {
		return usagef("which socket? use --socket PATH")
	}
	target := conformance.Target{
		Socket:  c.String("socket"),
		Restart: a.shell(c.String("restart-command")),
		Grow:    a.shell(c.String("resize-command")),
	}
	o := conformance.Options{Select: func(k *conformance.Case) bool { return strings.Contains(k.Name(), c.String("case")) }}
	report := conformance.Run(c.Context, target, o)
	if len(report) == 0 {
		return usagef("no case has %q in its name", c.String("case"))
	}
	if err := a.printReport(c, report); err != nil {
		return err
	}
	t := report.Tally()
	if t.Failed() > 0 {
		return fmt.Errorf("%w: %v", errNotConformant, t)
	}
	return nil
}

func (a *app) printReport(c *cli.Context, report conformance.Report) error {
	rows := make([][]string, len(report))
	for i, r := range report {
		rows[i] = []string{string(r.Result), string(r.Kind), r.Name, r.Spec, orDash(r.Detail)}
	}
	p := a.printer(c)
	if err := p.list(report, []string{"RESULT", "KIND", "CASE", "SPEC", "DETAIL"}, rows); err != nil || p.json {
		return err
	}
	_, err := fmt.Fprintf(p.w, "\n%v\n", report.Tally())
	return err
}

// shell makes a function of a command; nil of none. What the command prints goes to
// stderr. A server that it leaves behind is not waited for.
func (a *app) shell(command string) func(context.Context) error {
	if command == "" {
		return nil
	}
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, commandPatience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
		if f, ok := a.out.err.(*os.File); ok {
			cmd.Stdout, cmd.Stderr = f, f
		}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("run %q: %w", command, err)
		}
		return nil
	}
}
