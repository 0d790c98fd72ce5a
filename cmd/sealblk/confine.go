package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"sealblk/daemon/broker"
	"sealblk/daemon/worker"
	"sealblk/disk"
	"sealblk/internal/linkname"
	"sealblk/internal/sandbox"
	"sealblk/keymgr"
	"sealblk/keymgr/local"
)

// brokerName is the command that an export runs as its privileged process.
const brokerName = "broker"

// ownProgram is this program, also after its file was replaced by another version.
const ownProgram = "/proc/self/exe"

// broker makes the client of the privileged process that an export starts. name is the
// disk's, empty for a file that is not in the catalogue.
func (a *app) broker(c *cli.Context, name string, config config) (*broker.Client, error) {
	command, err := ownCommand(c, stateDir(c))
	if err != nil {
		return nil, err
	}
	command[0] = os.Args[0]
	command = append(command, brokerName, "--key-deadline", keyDeadline(c, config).String())
	if name != "" {
		command = append(command, name)
	}
	return broker.New(ownProgram, command, a.logger(c)), nil
}

func (a *app) brokerCommand() *cli.Command {
	return &cli.Command{
		Name: brokerName, Usage: "the privileged process of an export, which starts it", ArgsUsage: "[NAME]", Hidden: true,
		Flags:  []cli.Flag{keyDeadlineFlag(0)},
		Action: a.serveBroker,
	}
}

func (a *app) serveBroker(c *cli.Context) error {
	var names []string
	if c.Args().Present() {
		names = []string{"NAME"}
	}
	args, err := arguments(c, names...)
	if err != nil {
		return err
	}
	rootPassphrase.unattended = true
	// These are for the export, with which the broker ends.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	config, err := loadConfig(c.String("config"))
	if err != nil {
		return err
	}
	guardSelf(config)
	retry := keymgr.PatientRetry
	retry.Silence = keyDeadline(c, config)
	keys, err := a.keysWith(c, local.DiskService, retry)
	if err != nil {
		return err
	}
	o := broker.Options{Deadline: retry.Patience + 2*retry.Silence, Interval: config.Worker.KeyCheckInterval}
	if len(args) > 0 {
		disks, err := disk.OpenCatalogue(stateDir(c), nil)
		if err != nil {
			return err
		}
		o.Disk = (&recorded{disks: disks, name: args[0]}).read
		o.Version = func(uri string) string { return disks.VersionOf(args[0], uri) }
	}
	return errors.Join(broker.Serve(context.WithoutCancel(c.Context), keys, o), keys.Close())
}

// keyDeadlineFlag bounds the wait for a KMS that does not answer.
func keyDeadlineFlag(value time.Duration) cli.Flag {
	f := &cli.DurationFlag{Name: "key-deadline", Usage: "longest `TIME` to wait for a KMS that does not answer", Value: value}
	if value == 0 {
		f.DefaultText = "worker.key_deadline of the configuration"
	}
	return f
}

func checkKeyDeadline(d time.Duration) error {
	if d < time.Second || d > time.Hour {
		return usagef("--key-deadline %v: use 1s to 1h", d)
	}
	return nil
}

func keyDeadline(c *cli.Context, config config) time.Duration {
	return cmp.Or(c.Duration("key-deadline"), config.Worker.KeyDeadline)
}

// recorded is what the record of a disk says, read again when it has changed.
type recorded struct {
	disks *disk.Catalogue
	name  string

	mu    sync.Mutex
	stamp string // of what was read; empty: nothing was
	last  broker.Disk
}

func (r *recorded) read() (broker.Disk, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stamp := r.disks.RecordStamp(r.name)
	if stamp != "" && stamp == r.stamp {
		return r.last, nil
	}
	now, err := r.disks.Get(r.name)
	if err != nil {
		return broker.Disk{}, err
	}
	if now.RewrappingTo != "" { // then the header counts too
		stamp = ""
	}
	r.stamp, r.last = stamp, broker.Disk{KeyURI: r.disks.KeyOf(now), Urgent: now.OnKeyLoss != disk.KeyLossKeep}
	return r.last, nil
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
