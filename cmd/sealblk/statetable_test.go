package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sealblk/keymgr"
)

// stateRow is a command, and the code with which each state of the key refuses it; ""
// where it works.
type stateRow struct {
	command                                           string
	enabled, disabled, pendingDeletion, pendingImport string
	// external rows are for keys of external origin only.
	external bool
}

// stateTable is the reference cloud's published table, on the command line. KEY is the
// key, DB a disk under it. Beside it stands the call that a command makes, where that is
// not plain; Encrypt is for servers and has no command.
var stateTable = []stateRow{
	{"disk create new --size 1M --key KEY", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport", false},                // GenerateDataKey
	{"disk export-key DB --out OUT --yes-i-know", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport", false},          // Decrypt
	{"disk create new --size 1M --key KEY --no-plaintext", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport", false}, // GenerateDataKeyWithoutPlaintext
	{"disk rewrap DB --key alias/other", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport", false},                   // ReEncrypt from the key
	{"disk rewrap spare --key KEY", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport", false},                        // ReEncrypt to the key
	{"key show KEY", "", "", "", "", false},                                          // DescribeKey
	{"key list", "", "", "", "", false},                                              // ListKeys
	{"key set KEY --description new", "", "", "Rejected.PendingDeletion", "", false}, // UpdateKeyDescription
	{"key enable KEY", "", "", "Rejected.StateModifiedFailed", "Rejected.StateModifiedFailed", false},
	{"key disable KEY", "", "", "Rejected.StateModifiedFailed", "Rejected.StateModifiedFailed", false},
	{"key schedule-deletion KEY --days 7 --force", "", "", "Rejected.StateModifiedFailed", "", false},
	{"key cancel-deletion KEY", "Rejected.StateModifiedFailed", "Rejected.StateModifiedFailed", "", "Rejected.StateModifiedFailed", false},
	{"key alias set alias/new KEY", "", "", "Rejected.StateModifiedFailed", "", false}, // CreateAlias
	{"key alias set alias/other KEY", "", "", "Rejected.PendingDeletion", "", false},   // UpdateAlias
	{"key alias delete alias/key", "", "", "", "", false},
	{"key rotate KEY", "", "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport", false},
	{"key set KEY --rotate-every never", "", "", "Rejected.PendingDeletion", "", false},
	{"key set KEY --deletion-protection on", "", "", "Rejected.PendingDeletion", "", false},
	{"key usage KEY", "", "", "", "", false},
	{"key import KEY --material MATERIAL", "", "", "Rejected.StateModifiedFailed", "", true},
	{"key delete-material KEY", "", "", "", "", true},
}

// stateAfter is the state that a command leaves where it works; others leave it.
var stateAfter = map[string]keymgr.State{
	"key enable KEY": keymgr.Enabled, "key disable KEY": keymgr.Disabled, "key cancel-deletion KEY": keymgr.Enabled,
	"key schedule-deletion KEY --days 7 --force": keymgr.PendingDeletion,
}

// wayOut is the command that an error has to name in a state.
var wayOut = map[keymgr.State]string{
	keymgr.Enabled: "sealblk key show KEY", keymgr.Disabled: "sealblk key enable KEY",
	keymgr.PendingDeletion: "sealblk key cancel-deletion KEY", keymgr.PendingImport: "sealblk key import KEY --material FILE",
}

// stateCell is a state directory with a key in a state.
type stateCell struct {
	t     *testing.T
	dir   string
	names *strings.Replacer // KEY, DB, … in a command
	key   string
}

func TestStateTable(t *testing.T) {
	for _, r := range stateTable {
		for state, code := range map[keymgr.State]string{
			keymgr.Enabled: r.enabled, keymgr.Disabled: r.disabled,
			keymgr.PendingDeletion: r.pendingDeletion, keymgr.PendingImport: r.pendingImport,
		} {
			t.Run(r.command+"/"+string(state), func(t *testing.T) {
				c := newStateCell(t, state, r.external || state == keymgr.PendingImport)
				got := c.run(strings.Fields(r.command)...)
				c.check(r, state, code, got)
			})
		}
	}
}

func newStateCell(t *testing.T, state keymgr.State, external bool) *stateCell {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sealblk-table-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &stateCell{t: t, dir: dir, names: strings.NewReplacer("KEY", "alias/key", "MATERIAL", filepath.Join(dir, "material"))}
	if err := os.WriteFile(filepath.Join(dir, "material"), bytes.Repeat([]byte("m"), 32), 0o600); err != nil {
		t.Fatal(err)
	}
	origin := "kms"
	if external {
		origin = "external"
	}
	var made struct {
		KeyID string `json:"key_id"`
	}
	c.must(&made, "key", "create", "--alias", "alias/key", "--origin", origin)
	c.key = made.KeyID
	c.must(nil, "key", "create", "--alias", "alias/other")
	c.must(nil, "key", "authorize", "alias/other", "--principal", "disk-service", "--allow", "generate,decrypt,reencrypt")
	c.must(nil, "disk", "create", "spare", "--size", "1M", "--key", "alias/other")
	if external {
		c.must(nil, "key", "import", "KEY", "--material", "MATERIAL")
	}
	c.must(nil, "key", "authorize", "KEY", "--principal", "disk-service", "--allow", "generate,decrypt,reencrypt")
	c.must(nil, "disk", "create", "db", "--size", "1M", "--key", "KEY")
	switch state {
	case keymgr.Disabled:
		c.must(nil, "key", "disable", "KEY")
	case keymgr.PendingDeletion:
		c.must(nil, "key", "schedule-deletion", "KEY", "--days", "7", "--force")
	case keymgr.PendingImport:
		c.must(nil, "key", "delete-material", "KEY")
	}
	c.names = strings.NewReplacer("KEY", c.key, "MATERIAL", filepath.Join(dir, "material"), "OUT", filepath.Join(dir, "out"), "DB", "db")
	return c
}

// outcome is what a command did.
type outcome struct {
	code           int
	stdout, stderr bytes.Buffer
}

// run runs a command in this process.
func (c *stateCell) run(words ...string) *outcome {
	line := []string{"sealblk", "--state-dir", c.dir, "--output", "json"}
	for _, w := range words {
		line = append(line, c.names.Replace(w))
	}
	o := &outcome{}
	o.code = run(line, streams{&o.stdout, &o.stderr})
	return o
}

func (c *stateCell) must(result any, words ...string) {
	c.t.Helper()
	o := c.run(words...)
	if o.code != 0 {
		c.t.Fatalf("%q: exit code %d, %s", words, o.code, o.stderr.String())
	}
	if result != nil {
		if err := json.Unmarshal(o.stdout.Bytes(), result); err != nil {
			c.t.Fatal(err)
		}
	}
}

// check compares an outcome with the table. A refusal names the key, its state and the
// way out, in words and as JSON.
func (c *stateCell) check(r stateRow, state keymgr.State, code string, o *outcome) {
	c.t.Helper()
	after := state
	switch {
	case code != "":
		c.checkRefusal(state, code, o)
	case o.code != 0:
		c.t.Errorf("refused: %s", o.stderr.String())
	case stateAfter[r.command] != "":
		after = stateAfter[r.command]
	case r.command == "key import KEY --material MATERIAL" && state == keymgr.PendingImport:
		after = keymgr.Enabled
	case r.command == "key delete-material KEY" && state != keymgr.PendingDeletion:
		after = keymgr.PendingImport
	}
	var k keymgr.KeyInfo
	c.must(&k, "key", "show", c.key)
	if k.State != after {
		c.t.Errorf("the state is %s afterwards, want %s", k.State, after)
	}
	if r.command == "key list" && !strings.Contains(o.stdout.String(), c.key) {
		c.t.Error("the key is not in the list")
	}
}

func (c *stateCell) checkRefusal(state keymgr.State, code string, o *outcome) {
	c.t.Helper()
	var e struct{ Error failure }
	if err := json.Unmarshal(o.stderr.Bytes(), &e); err != nil || o.code != 1 || e.Error.Code != code {
		c.t.Errorf("exit code %d, %s, %v; want 1 and %s", o.code, o.stderr.String(), err, code)
		return
	}
	way := strings.ReplaceAll(wayOut[state], "KEY", c.key)
	if !strings.Contains(e.Error.Message, c.key) || !strings.Contains(e.Error.Message, fmt.Sprintf("state %s", state)) ||
		!strings.Contains(e.Error.Message, code) || !strings.Contains(e.Error.Hint, way) {
		c.t.Errorf("%+v does not name the key %s, its state %s and the way out %q", e.Error, c.key, state, way)
	}
}
