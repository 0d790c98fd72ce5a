package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func TestReorder(t *testing.T) {
	cases := map[string]string{
		"disk list":                                "disk list",
		"disk create d --size 1G":                  "disk create --size 1G -- d",
		"disk create --size 1G d --encrypted":      "disk create --size 1G --encrypted -- d",
		"disk show d --output json":                "--output json disk show -- d",
		"--output json disk show d":                "--output json disk show -- d",
		"disk create d --size=1G":                  "disk create --size=1G -- d",
		"disk show -- --odd":                       "disk show -- --odd",
		"disk show list":                           "disk show -- list",
		"export d --fd 3 --read-only":              "export --fd 3 --read-only -- d",
		"disk create d --nonsense --encrypted":     "disk create --nonsense --encrypted -- d",
		"nonsense x":                               "nonsense x",
		"export --print-capabilities":              "export --print-capabilities",
		"disk create disk --size 1G --state-dir s": "--state-dir s disk create --size 1G -- disk",
		"help":                         "--help",
		"help disk create":             "disk create --help",
		"disk help create":             "disk create --help",
		"disk create --help extra":     "disk create --help",
		"disk create d --size -h":      "disk create --size -h -- d",
		"disk show d --state-dir s -h": "disk show --help",
		"disk show help":               "disk show -- help",
		"help nonsense":                "nonsense",
	}
	for in, want := range cases {
		app := newApp(streams{io.Discard, io.Discard})
		got, err := reorder(app.cli, append([]string{"sealblk"}, strings.Fields(in)...))
		if err != nil {
			t.Errorf("%s: %v", in, err)
		}
		if line := strings.Join(got[1:], " "); line != want {
			t.Errorf("%s:\n got %s\nwant %s", in, line, want)
		}
	}
}

func TestReorderWantsValues(t *testing.T) {
	app := newApp(streams{io.Discard, io.Discard})
	if _, err := reorder(app.cli, []string{"sealblk", "disk", "create", "d", "--size"}); err == nil {
		t.Fatal("a flag without its value was accepted")
	}
}

// FuzzReorder: no word of a command line is lost, doubled or changed.
func FuzzReorder(f *testing.F) {
	f.Add("disk create d --size 1G --encrypted -- -x")
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Fields(line)
		app := newApp(streams{io.Discard, io.Discard})
		out, err := reorder(app.cli, append([]string{"sealblk"}, words...))
		if err != nil {
			return
		}
		if slices.ContainsFunc(words, func(w string) bool { return w == "help" || slices.Contains(helpFlags, w) }) {
			return // a question for help keeps only what names a command
		}
		got := slices.DeleteFunc(out[1:], func(s string) bool { return s == "--" })
		want := slices.DeleteFunc(slices.Clone(words), func(s string) bool { return s == "--" })
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%q became %q", words, out)
		}
	})
}
