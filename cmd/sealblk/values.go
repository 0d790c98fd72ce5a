package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"sealblk/bench"
	"sealblk/disk"
	"sealblk/keymgr/local"
)

// values are what flags with few values may be given.
var values = map[string][]string{
	"output": {"table", "json"}, "log-level": {"debug", "info", "warn", "error"},
	"discard": {string(disk.DiscardUnmap), string(disk.DiscardIgnore)}, "zeroes": {string(disk.ZeroesWrite), string(disk.ZeroesUnmap)},
	"on-key-loss": {string(disk.KeyLossKeep), string(disk.KeyLossPause), string(disk.KeyLossDetach)},
	"role":        {string(disk.System), string(disk.Data)}, "category": {string(disk.Cloud), string(disk.Local)},
	"sector-size": {"512", "4096"}, "rw": bench.Patterns, "allow": {string(local.Generate), string(local.Decrypt), string(local.ReEncrypt), string(local.Admin)}, "format": {"table", "go"},
	"io-engine": {"auto", "uring", "threads", "inline"}, "origin": {"kms", "external"},
}

// lists are the flags that take several of their values, with commas between.
var lists = []string{"rw", "allow"}

// checkValues refuses a command whose flag has a value that it never takes.
func checkValues(c *cli.Context) error {
	if c.String("out") == "-" { // a secret is not left in the working directory by who meant a pipe
		return usagef("--out -: results go to standard output, this to a file or a pipe with a name: give that, or ./- for a file of this name")
	}
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if values[name] == nil || !c.IsSet(name) {
			continue
		}
		given := []string{fmt.Sprint(c.Value(name))}
		if slices.Contains(lists, name) {
			given = listed(c, name)
		}
		for _, v := range given {
			if !slices.Contains(values[name], v) {
				return usagef("--%s %q: use %s", name, v, either(values[name]))
			}
		}
	}
	return nil
}

// listed are the values of a flag that takes several.
func listed(c *cli.Context, name string) []string {
	all := c.StringSlice(name)
	if all == nil {
		all = strings.Split(c.String(name), ",")
	}
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}

// either puts words together: a, b or c.
func either(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
