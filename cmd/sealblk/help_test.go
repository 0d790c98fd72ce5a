package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// everyCommand visits each command that a user sees, with the words that name it.
func everyCommand(commands []*cli.Command, words []string, visit func(words []string, c *cli.Command)) {
	for _, c := range commands {
		if c.Hidden {
			continue
		}
		here := append(slices.Clone(words), c.Name)
		visit(here, c)
		everyCommand(c.Subcommands, here, visit)
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	everyCommand(newApp(streams{io.Discard, io.Discard}).cli.Commands, nil, func(words []string, c *cli.Command) {
		asked := [][]string{
			append(slices.Clone(words), "--help"),
			append(slices.Clone(words), "extra", "-h", "--nonsense"),
			append([]string{"help"}, words...),
		}
		for _, line := range asked {
			if len(c.Subcommands) > 0 && slices.Contains(line, "extra") {
				continue // a group has no argument to take it for
			}
			var out, err bytes.Buffer
			if code := run(append([]string{"sealblk"}, line...), streams{&out, &err}); code != 0 || err.Len() > 0 {
				t.Errorf("%q: exit code %d, %s", line, code, err.String())
			}
			if !strings.HasPrefix(out.String(), "NAME:\n   sealblk "+strings.Join(words, " ")+" - "+c.Usage) {
				t.Errorf("%q shows other help:\n%.80s", line, out.String())
			}
		}
	})
}

func TestEveryCommandHasAManualPage(t *testing.T) {
	t.Setenv("SEALBLK_STATE_DIR", "/elsewhere") // a build host's settings are not the manual's
	pages := manual()
	everyCommand(newApp(streams{io.Discard, io.Discard}).cli.Commands, []string{"sealblk"}, func(words []string, c *cli.Command) {
		page := string(pages[strings.Join(words, "-")])
		for _, want := range []string{".SH NAME\n", roff(c.Usage), ".SH SYNOPSIS\n", ".SH EXIT STATUS\n", ".SH SEE ALSO\n"} {
			if !strings.Contains(page, want) {
				t.Errorf("%q: no %q in its page", words, want)
			}
		}
		for _, f := range c.Flags {
			if !strings.Contains(page, roff("--"+f.Names()[0])) {
				t.Errorf("%q: no --%s in its page", words, f.Names()[0])
			}
		}
	})
	if p := string(pages["sealblk"]); !strings.Contains(p, roff(defaultStateDir)) || strings.Contains(p, "elsewhere") {
		t.Errorf("wrong defaults:\n%s", p)
	}
}

func TestRoff(t *testing.T) {
	for in, want := range map[string]string{
		"a-b": `a\-b`, `a\b`: `a\eb`, ".TH x": `\&.TH x`, "a\n'b": "a\n\\&'b", "plain": "plain",
	} {
		if got := roff(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestComplete(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SEALBLK_STATE_DIR", dir)
	if err := os.Mkdir(filepath.Join(dir, "disks"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"db.json", "db-2.json", ".x.json", "db.lock", "$(reboot).json"} {
		if err := os.WriteFile(filepath.Join(dir, "disks", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]string{
		"disk show":                  "db db-2",
		"disk show --output json":    "db db-2",
		"disk show db":               "",
		"disk create":                "",
		"disk import":                "",
		"export":                     "db db-2",
		"disk show --state-dir /x":   "",
		"disk list --output":         "table json",
		"disk create d --role":       "system data",
		"disk create --size":         "",
		"disk create d --si":         "--size",
		"disk create d --se":         "--sector-size --serial",
		"disk list --o":              "--output",
		"key alias":                  "set delete",
		"disk create d --encrypted":  "--encrypted",
		"disk create --role system ": "",
		"nonsense":                   "",
		"":                           "key kms audit disk export conformance bench guard doctor completion version",
	} {
		var out bytes.Buffer
		if code := run(slices.Concat([]string{"sealblk"}, strings.Fields(line), []string{completionFlag}), streams{&out, io.Discard}); code != 0 {
			t.Fatalf("%s: exit code %d", line, code)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	if _, err := os.Stat("/x"); err == nil {
		t.Error("completing made a state directory")
	}
}
