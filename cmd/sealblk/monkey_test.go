package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
	"pgregory.net/rapid"

	"sealblk/keymgr/secret"
)

// vocabulary is every word that means something on a command line, and some that do not.
func vocabulary() []string {
	words := []string{
		"db", "other", "1M", "512", "-1", "0", "alias/x", "acs/ecs", "local:", "vault:x", "--", "-", "", "-h", "help", "--help",
		"a\nb", "\x1b[31m", "ü", "../x", "/dev/null", "file:/dev/null", "memory:", "null:", "json", "table", "=", "--=", "--size=1M",
		"--encrypted=maybe", "--output=json", "-output", "99999999999999999999", completionFlag, strings.Repeat("x", 300), "\xff",
	}
	app := newApp(streams{}).cli
	flags := func(flags []cli.Flag) {
		for _, f := range flags {
			words = append(words, "--"+f.Names()[0])
		}
	}
	flags(app.Flags)
	everyCommand(app.Commands, nil, func(_ []string, c *cli.Command) {
		words = append(words, c.Name)
		flags(c.Flags)
	})
	return words
}

// never are commands that wait for somebody, or ask about the host.
var never = []string{"export", "conformance", "doctor", "attach", "serve", "bench", "guard"}

// TestAnyCommandLine: whatever the words, the program ends with 0, 1 or 2, and says what
// is wrong on one line without control characters, or as JSON.
func TestAnyCommandLine(t *testing.T) {
	state := t.TempDir()
	t.Setenv("SEALBLK_STATE_DIR", state)
	t.Chdir(t.TempDir()) // for whatever is written where it should not be
	words := slices.DeleteFunc(vocabulary(), func(w string) bool { return slices.Contains(never, w) })
	starts := []string{"disk create", "disk import", "disk show", "disk delete", "disk export-key", "disk check", "disk list", "disk detach", "key create", "key show", "key alias set", "key", "disk", ""}
	rapid.Check(t, func(t *rapid.T) {
		line := append([]string{"sealblk"}, strings.Fields(rapid.SampledFrom(starts).Draw(t, "command"))...)
		line = append(line, rapid.SliceOfN(rapid.SampledFrom(words), 0, 6).Draw(t, "words")...)
		var out, err bytes.Buffer
		code := run(line, streams{&out, &err})
		if n, _ := secret.Live(); n != 0 {
			t.Fatalf("%q: %d secrets are left in memory", line, n)
		}
		switch {
		case code < 0 || code > 2:
			t.Fatalf("%q: exit code %d", line, code)
		case code == 0:
			return
		}
		said := strings.Split(strings.TrimSuffix(err.String(), "\n"), "\n")
		last := said[len(said)-1]
		for _, l := range said[:len(said)-1] {
			if !strings.HasPrefix(l, "sealblk: warning: ") && !strings.HasPrefix(l, `{"warning":`) {
				t.Fatalf("%q: more than one line: %q", line, said)
			}
		}
		if strings.ContainsFunc(last, func(r rune) bool { return r < ' ' || r == 0x7f }) || last == "" {
			t.Fatalf("%q: %q", line, last)
		}
		if strings.HasPrefix(last, "{") {
			var f struct{ Error failure }
			if err := json.Unmarshal([]byte(last), &f); err != nil || f.Error.Code == "" || f.Error.Message == "" {
				t.Fatalf("%q: %q: %v", line, last, err)
			}
		} else if !strings.HasPrefix(last, "sealblk: ") {
			t.Fatalf("%q: %q", line, last)
		}
	})
}
