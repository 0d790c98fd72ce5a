package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
)

const defaultStateDir = "/var/lib/sealblk"

// app is the command line with what its commands share.
type app struct {
	cli  *cli.App
	out  streams
	json bool // what goes to stderr is JSON too
}

func newApp(out streams) *app {
	a := &app{out: out}
	a.cli = &cli.App{
		Name:  "sealblk",
		Usage: "host-side disk encryption for QEMU/KVM",
		Description: "Disks are encrypted with AES-256-XTS on the host and served to VMs over vhost-user-blk.\n" +
			"Each disk has its own data key, wrapped by a key of a KMS. Without any set-up an embedded KMS is used.",
		Writer: out.out, ErrWriter: out.err,
		HideVersion:     true,
		HideHelpCommand: true, // reorder knows "help"
		ExitErrHandler:  func(*cli.Context, error) {},
		Action:          noCommand,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "state-dir", Usage: "`DIR` that holds disks and keys", EnvVars: []string{"SEALBLK_STATE_DIR"}, Value: defaultStateDir},
			&cli.StringFlag{Name: "config", Usage: "configuration `FILE` (TOML)"},
			&cli.StringFlag{Name: "output", Usage: "`FORMAT` of results: table or json", Value: "table"},
			&cli.StringFlag{Name: "log-level", Usage: "`LEVEL` of the log on stderr: debug, info, warn or error", Value: "warn"},
		},
		Before: a.checkGlobals,
		Commands: []*cli.Command{
			a.keyCommand(), a.kmsCommand(), a.auditCommand(), a.diskCommand(), a.exportCommand(), a.brokerCommand(),
			a.conformanceCommand(), a.benchCommand(), a.guardCommand(), a.doctorCommand(),
			a.completionCommand(), a.manCommand(), a.versionCommand(),
		},
	}
	a.cli.OnUsageError = onUsageError
	prepare(a.cli.Commands)
	return a
}

// prepare gives every command the same manners: usage errors are ours to report, and
// a group without a command says what it has.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError = onUsageError
		c.HideHelpCommand = true // or no disk could be called help
		c.Before = checkValues
		if len(c.Subcommands) > 0 {
			c.Action = noCommand
			prepare(c.Subcommands)
		}
	}
}

// onUsageError adds to the library's words which command has no such flag, or takes no
// such value, and where its flags are listed.
func onUsageError(c *cli.Context, err error, _ bool) error {
	return usagef("%s: %v: see %s --help", commandName(c), err, commandName(c))
}

// commandName is the command with the words in front of it, as it is typed.
func commandName(c *cli.Context) string {
	if c.Command != nil && c.Command.HelpName != "" {
		return c.Command.HelpName
	}
	return c.App.HelpName
}

// noCommand stands where a command's name is missing or unknown.
func noCommand(c *cli.Context) error {
	name := commandName(c)
	if c.Args().Present() {
		return usagef("%s: no command %q: see %s --help", name, c.Args().First(), name)
	}
	if c.String("output") != "json" {
		cli.ShowSubcommandHelp(c) //nolint:errcheck // the error below says that much
	}
	return usagef("%s: which command? see %s --help", name, name)
}

func (a *app) checkGlobals(c *cli.Context) error {
	if f := c.String("output"); f != "table" && f != "json" {
		return usagef("output format %q: use table or json", f)
	}
	a.json = c.String("output") == "json"
	if _, err := logLevel(c); err != nil {
		return err
	}
	return nil
}

func logLevel(c *cli.Context) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return 0, usagef("log level %q: use debug, info, warn or error", c.String("log-level"))
	}
	return level, nil
}

func (a *app) printer(c *cli.Context) printer {
	return printer{w: a.out.out, json: c.String("output") == "json"}
}

func (a *app) logger(c *cli.Context) *slog.Logger {
	level, _ := logLevel(c) // checkGlobals has refused what does not parse
	o := &slog.HandlerOptions{Level: level}
	if c.String("output") == "json" {
		return slog.New(slog.NewJSONHandler(a.out.err, o))
	}
	return slog.New(slog.NewTextHandler(a.out.err, o))
}

// warn tells the user what is not an error: a line each, or an object.
func (a *app) warn(lines ...string) {
	for _, l := range lines {
		if a.json {
			json.NewEncoder(a.out.err).Encode(map[string]string{"warning": l}) //nolint:errcheck // stderr is the last resort
			continue
		}
		fmt.Fprintln(a.out.err, "sealblk: warning:", oneLine(l))
	}
}

// stateDir is where disks and keys are.
func stateDir(c *cli.Context) string {
	if dir := c.String("state-dir"); dir != "" {
		return dir
	}
	return defaultStateDir
}

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the program's version",
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return a.printer(c).done(map[string]string{"version": version}, "sealblk %s", version)
		},
	}
}

// ownCommand is how to start this program again on the same state.
func ownCommand(c *cli.Context, stateDir string) ([]string, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := []string{program, "--state-dir", stateDir, "--log-level", c.String("log-level")}
	if config := c.String("config"); config != "" {
		if config, err = filepath.Abs(config); err != nil { // it is started elsewhere
			return nil, err
		}
		cmd = append(cmd, "--config", config)
	}
	return cmd, nil
}
