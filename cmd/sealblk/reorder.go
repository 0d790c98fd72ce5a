package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder moves flags in front of arguments, and global flags in front of the
// command, because the command-line library stops reading flags at the first
// argument. Everything behind "--" stays an argument. Whoever asks for help anywhere
// gets it, for the command named so far.
func reorder(app *cli.App, args []string) ([]string, error) {
	r := reordering{app: app, commands: app.Commands}
	rest := args[1:]
	for len(rest) > 0 {
		word := rest[0]
		rest = rest[1:]
		switch {
		case word == "--":
			r.args = append(r.args, rest...)
			rest = nil
		case slices.Contains(helpFlags, word):
			r.help, rest = true, nil
		case strings.HasPrefix(word, "-") && word != "-":
			var err error
			if rest, err = r.flag(word, rest); err != nil {
				return args, err
			}
		default:
			r.argument(word)
		}
	}
	return r.line(args[0]), nil
}

var helpFlags = []string{"--help", "-help", "-h"}

// reordering is a command line taken apart.
type reordering struct {
	app      *cli.App
	commands []*cli.Command // what may come next
	command  *cli.Command   // the innermost command so far

	global, names, flags, args []string

	help bool
}

// argument takes a command's name, or an argument once there is no command left.
func (r *reordering) argument(word string) {
	if len(r.args) == 0 {
		if word == "help" && len(r.commands) > 0 {
			r.help = true
			return
		}
		for _, c := range r.commands {
			if c.HasName(word) {
				r.command, r.commands = c, c.Subcommands
				r.names = append(r.names, word)
				return
			}
		}
	}
	r.args = append(r.args, word)
}

// flag takes a flag and, if it has one, its value.
func (r *reordering) flag(word string, rest []string) ([]string, error) {
	to, f := r.find(word)
	*to = append(*to, word)
	if f == nil || isBool(f) {
		return rest, nil
	}
	name, value, inside := strings.Cut(word, "=")
	if !inside {
		if len(rest) == 0 {
			return nil, usagef("flag %s needs a value", word)
		}
		value, rest = rest[0], rest[1:]
		*to = append(*to, value)
	}
	if value == "" && to == &r.global {
		// A script whose variable is not set means another place than the default.
		return nil, usagef("flag %s is empty: give it a value, or leave it out", name)
	}
	return rest, nil
}

// find looks a flag up in the innermost command and then among the global ones. A
// flag that nobody knows is left to the library to refuse.
func (r *reordering) find(word string) (*[]string, cli.Flag) {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	if r.command != nil {
		if f := lookup(r.command.Flags, name); f != nil {
			return &r.flags, f
		}
	}
	if f := lookup(r.app.Flags, name); f != nil {
		return &r.global, f
	}
	return &r.flags, nil
}

func lookup(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func isBool(f cli.Flag) bool {
	_, ok := f.(*cli.BoolFlag)
	return ok
}

func (r *reordering) line(program string) []string {
	if r.help && (len(r.args) == 0 || len(r.commands) == 0) {
		return slices.Concat([]string{program}, r.names, helpFlags[:1])
	}
	out := slices.Concat([]string{program}, r.global, r.names, r.flags)
	if len(r.args) > 0 && r.command != nil {
		out = append(out, "--")
	}
	return append(out, r.args...)
}

// arguments checks the number of arguments of a command and returns them. An empty one
// is a variable of a script that is not set: it names nothing.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	got := c.Args().Slice()
	if missing := names[min(len(got), len(names)):]; len(missing) > 0 {
		return nil, usagef("%s: %s %s missing: usage: %s", c.Command.HelpName, strings.Join(missing, " and "), isOrAre(missing), usageLine(c))
	}
	if len(got) > len(names) {
		return nil, usagef("%s: unexpected argument %q: usage: %s", c.Command.HelpName, got[len(names)], usageLine(c))
	}
	if i := slices.Index(got, ""); i >= 0 {
		return nil, usagef("%s: %s is empty: usage: %s", c.Command.HelpName, names[i], usageLine(c))
	}
	return got, nil
}

func isOrAre(words []string) string {
	if len(words) == 1 {
		return "is"
	}
	return "are"
}

func usageLine(c *cli.Context) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Command.HelpName, c.Command.ArgsUsage, flagsHint(c)))
}

func flagsHint(c *cli.Context) string {
	if len(c.Command.Flags) == 0 {
		return ""
	}
	return "[flags]"
}
