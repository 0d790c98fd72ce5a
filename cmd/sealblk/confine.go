package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"sealblk/daemon/broker"
	"sealblk/daemon/worker"
	"sealblk/internal/linkname"
	"sealblk/internal/sandbox"
	"sealblk/keymgr/local"
)

// brokerName is the command that an export runs as its privileged process.
const brokerName = "broker"

// ownProgram is this program, also after its file was replaced by another version.
const ownProgram = "/proc/self/exe"

// broker makes the client of the privileged process that an export starts.
func (a *app) broker(c *cli.Context) (*broker.Client, error) {
	command, err := ownCommand(c, stateDir(c))
	if err != nil {
		return nil, err
	}
	command[0] = os.Args[0]
	return broker.New(ownProgram, append(command, brokerName), a.logger(c)), nil
}

func (a *app) brokerCommand() *cli.Command {
	return &cli.Command{
		Name: brokerName, Usage: "the privileged process of an export, which starts it", Hidden: true,
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			// These are for the export, with which the broker ends.
			signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
			config, err := loadConfig(c.String("config"))
			if err != nil {
				return err
			}
			guardSelf(config)
			keys, err := a.keys(c, local.DiskService)
			if err != nil {
				return err
			}
			return errors.Join(broker.Serve(context.WithoutCancel(c.Context), keys), keys.Close())
		},
	}
}

// confine is how an export gives up what it does not need any more. It is called
// before the export has a key, for the key guard.
func confine(assistant *broker.Client, config config) worker.Confine {
	guarded := guardSelf(config)
	if config.Worker.Sandbox == "off" {
		return func(context.Context, []string, []linkname.Name) (worker.Confined, error) {
			warning := "the sandbox is off, as the configuration wants it: set worker.sandbox to on"
			return worker.Confined{Sandbox: sandbox.Report{guarded}, Warnings: []string{warning}, Release: assistant.Close}, nil
		}
	}
	return func(ctx context.Context, files []string, names []linkname.Name) (c worker.Confined, err error) {
		c.Show = assistant.Show
		c.Release = func() error { return errors.Join(assistant.Finish(), assistant.Close()) }
		if err := assistant.Seal(ctx, files, names); err != nil {
			return c, err
		}
		c.Sandbox, err = sandbox.Apply(sandbox.Policy{User: config.Worker.User})
		c.Warnings = c.Sandbox.Lacking()
		c.Sandbox = append(c.Sandbox, guarded)
		return c, err
	}
}
