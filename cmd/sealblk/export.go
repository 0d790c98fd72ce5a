package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"sealblk/blockdev/file"
	"sealblk/daemon/control"
	"sealblk/daemon/worker"
	"sealblk/disk"
	"sealblk/vhost"
)

// capabilities is what QEMU's conventions for back-end programs ask for
// (docs/interop/vhost-user.rst, "Backend program conventions").
type capabilities struct {
	Type     string   `json:"type"`
	Features []string `json:"features"`
}

func (a *app) exportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "serve a disk over vhost-user-blk until SIGTERM", ArgsUsage: "NAME",
		Description: "Serves disk NAME, or the plain file of --blk-file, to one VM after the other.\n" +
			"Follows QEMU's conventions for vhost-user back-end programs. One line on stderr says when\n" +
			"a front-end can connect; SIGTERM finishes what is in flight and exits with 0.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket-path", Usage: "`PATH` of the unix socket to listen on (default: run/NAME.sock in the state directory)"},
			&cli.IntFlag{Name: "fd", Usage: "inherited socket `N` instead of a path", Value: -1, DefaultText: "none"},
			&cli.IntFlag{Name: "num-queues", Usage: "virtqueues to offer, 1 to 16", Value: 4},
			&cli.IntFlag{Name: "queue-size", Usage: "largest virtqueue to accept, a power of two up to 1024", Value: 1024},
			&cli.BoolFlag{Name: "read-only", Usage: "let the guest read only"},
			&cli.BoolFlag{Name: "incoming", Usage: "stand by for a VM that migrates here: the disk may be in use elsewhere until the VM starts"},
			&cli.BoolFlag{Name: "use-escrow", Usage: "open the disk by its key in escrow: its own key, or the KMS of that, is lost; recorded"},
			&cli.StringFlag{Name: "blk-file", Usage: "serve a plain `FILE`: no catalogue, no encryption"},
			&cli.StringFlag{Name: "io-engine", Usage: "how files are read and written: auto, uring, threads, or inline (for files in memory)", Value: "auto"},
			&cli.BoolFlag{Name: "huge-pages", Usage: "put bounce memory in huge pages, 2 MiB each: some of the kernel's pool for each queue, if it has enough"},
			&cli.DurationFlag{Name: "poll-max", Usage: "longest `TIME` to look for requests before a queue's thread sleeps; 0 saves processor time", Value: vhost.DefaultPollMax},
			keyDeadlineFlag(0),
			&cli.BoolFlag{Name: "print-capabilities", Usage: "print what this back-end can do, as JSON, and exit"},
		},
		Action: a.export,
	}
}

func (a *app) export(c *cli.Context) error {
	if c.Bool("print-capabilities") {
		return printer{w: a.out.out, json: true}.encode(capabilities{"block", []string{"read-only", "blk-file"}})
	}
	o, err := a.exportOptions(c)
	if err != nil {
		return err
	}
	config, err := loadConfig(c.String("config"))
	if err != nil {
		return err
	}
	// Its keys are unwrapped in another process: no KMS is in the memory of this one.
	assistant, err := a.broker(c, o.Disk, config)
	if err != nil {
		return err
	}
	defer assistant.Close() //nolint:errcheck // it ends with this process in any case
	catalogue, err := disk.OpenCatalogue(stateDir(c), assistant)
	if err != nil {
		return err
	}
	if o.SocketPath, err = socketPath(c, catalogue, o); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // a VM's disk does not go because a reader of our log went
	notify, err := newNotifier()
	if err != nil {
		a.warn(err.Error())
	}
	defer notify.close()
	o.Log = a.logger(c)
	spareProcessors(o.NumQueues)
	o.Ready = func(s control.Status) { a.ready(s); notify.ready() }
	o.Confine = confine(assistant, config)
	o.WatchKey, o.LossGrace = assistant.Watch, config.Worker.KeyLossGrace
	return worker.Run(c.Context, catalogue, o)
}

func (a *app) exportOptions(c *cli.Context) (worker.Options, error) {
	o := worker.Options{
		BlkFile: c.String("blk-file"), FD: c.Int("fd"), ReadOnly: c.Bool("read-only"), Incoming: c.Bool("incoming"),
		NumQueues: c.Int("num-queues"), QueueSize: c.Int("queue-size"), PollMax: c.Duration("poll-max"), HugePages: c.Bool("huge-pages"), UseEscrow: c.Bool("use-escrow"),
	}
	names := []string{"NAME"}
	if c.IsSet("blk-file") {
		names = nil
	}
	args, err := arguments(c, names...)
	if err != nil {
		return o, err
	}
	if len(args) > 0 {
		o.Disk = args[0]
	}
	switch {
	case c.IsSet("fd") && c.IsSet("socket-path"):
		return o, usagef("--fd and --socket-path exclude each other")
	case c.IsSet("fd") && o.FD < 0:
		return o, usagef("--fd %d: give the number of an inherited socket", o.FD)
	case c.IsSet("socket-path") && c.String("socket-path") == "":
		return o, usagef("--socket-path: give the path of the socket")
	case c.IsSet("blk-file") && o.BlkFile == "":
		return o, usagef("--blk-file: give the path of a file")
	}
	if o.PollMax < 0 || o.PollMax > time.Millisecond {
		return o, usagef("--poll-max %v: use 0s to 1ms", o.PollMax)
	}
	if c.IsSet("key-deadline") {
		if err := checkKeyDeadline(c.Duration("key-deadline")); err != nil {
			return o, err
		}
	}
	if o.NumQueues < 1 || o.NumQueues > 16 {
		return o, usagef("--num-queues %d: use 1 to 16", o.NumQueues)
	}
	if q := o.QueueSize; q < 4 || q > 1024 || q&(q-1) != 0 {
		return o, usagef("--queue-size %d: use a power of two from 4 to 1024", q)
	}
	o.Engine = engines[c.String("io-engine")]
	return o, nil
}

// spareProcessors gives the Go runtime more than the threads of all queues can use. With
// none to spare it takes a queue's away whenever a system call of that takes more than
// some 20 µs, and on the queue's own processor, if that is the only one: a fifth of what a
// small request costs.
func spareProcessors(queues int) {
	if most := queues + 2; os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < most {
		runtime.GOMAXPROCS(most)
	}
}

var engines = map[string]file.Engine{
	"auto": file.EngineAuto, "uring": file.EngineUring, "threads": file.EngineThreads, "inline": file.EngineInline,
}

func socketPath(c *cli.Context, catalogue *disk.Catalogue, o worker.Options) (string, error) {
	switch {
	case c.IsSet("fd"):
		return "", nil
	case c.IsSet("socket-path"):
		return filepath.Abs(c.String("socket-path"))
	case o.Disk == "":
		return "", usagef("--blk-file needs --socket-path or --fd")
	}
	if o.Incoming {
		return catalogue.StandbySocketPath(o.Disk), nil
	}
	return catalogue.SocketPath(o.Disk), nil
}

// ready tells a person that front-ends may connect.
func (a *app) ready(s control.Status) {
	a.warn(s.Warnings...)
	what := s.Disk
	if what == "" {
		what = "file"
	}
	fmt.Fprintf(a.out.err, "sealblk: ready: %s on %s\n", what, orDash(s.SocketPath))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
