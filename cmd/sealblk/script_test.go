package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	collector "sealblk/bench/explain"
	"sealblk/keymgr/pkcs11"
)

// promptly has programs that run under the race detector end when they are done. By
// themselves they wait for a second, in which races might still be found: ten minutes for
// all that are started here.
const promptly = "atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" "+promptly))
	testscript.Main(m, map[string]func(){"sealblk": main})
}

// stateIn gives a script's programs a state directory, and the race detector's settings.
func stateIn(env *testscript.Env) {
	env.Setenv("SEALBLK_STATE_DIR", env.WorkDir+"/state")
	env.Setenv("GORACE", os.Getenv("GORACE"))
}

// TestScripts runs the program as a user would: see testdata/script.
func TestScripts(t *testing.T) { runScripts(t, "testdata/script", nil) }

// runScripts runs the scripts of a folder with more variables in their environment.
func runScripts(t *testing.T, dir string, variables map[string]string) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			stateIn(env)
			for name, value := range variables {
				env.Setenv(name, value)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "flip": flip, "cut": cut, "oneline": oneline, "jsonkeys": jsonKeys, "absent": absent, "await": await, "typed": typed,
		},
		Condition: condition,
	})
}

// condition is for what depends on the machine: [tracing] is what bench run --explain takes;
// and for what depends on the build: [pkcs11] has PKCS#11.
func condition(name string) (bool, error) {
	switch name {
	case "tracing":
		return collector.Supported() == nil, nil
	case "pkcs11":
		return pkcs11.Built, nil
	}
	return false, fmt.Errorf("no condition %q", name)
}

// exits CODE COMMAND...: the command ends with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		code = failed.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if (code == want) == neg {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// flip FILE OFFSET: one bit of the byte at OFFSET is changed.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	off, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	ts.Check(err)
	b[0] ^= 1
	_, err = f.WriteAt(b, off)
	ts.Check(err)
}

// cut FILE SIZE: the file is made that long.
func cut(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), size))
}

// oneline FILE: the file (stdout, stderr) has exactly one line, and it ends.
func oneline(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	lines := 0
	for _, c := range text {
		if c == '\n' {
			lines++
		}
	}
	if lines != 1 || text[len(text)-1] != '\n' {
		ts.Fatalf("%s has %d lines, want one:\n%s", args[0], lines, text)
	}
}

// jsonkeys FILE KEY...: the JSON object, or each object of the JSON array, has all
// these keys.
func jsonKeys(ts *testscript.TestScript, _ bool, args []string) {
	text := []byte(ts.ReadFile(args[0]))
	var list []map[string]any
	if json.Unmarshal(text, &list) != nil {
		var one map[string]any
		ts.Check(json.Unmarshal(text, &one))
		list = append(list, one)
	}
	if len(list) == 0 {
		ts.Fatalf("%s is an empty list", args[0])
	}
	for _, o := range list {
		for _, k := range args[1:] {
			if _, ok := o[k]; !ok {
				ts.Fatalf("%s: no key %q in %v", args[0], k, o)
			}
		}
	}
}

// absent KEYFILE DIR: no file below DIR holds the key, or one of its halves.
func absent(ts *testscript.TestScript, _ bool, args []string) {
	key, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	err = filepath.WalkDir(ts.MkAbs(args[1]), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && (bytes.Contains(data, key[:len(key)/2]) || bytes.Contains(data, key[len(key)/2:])) {
			err = fmt.Errorf("%s holds the plaintext data key", path)
		}
		return err
	})
	ts.Check(err)
}

// await FILE: the file, or one that matches the pattern, appears. A socket has to
// listen, as that of an export does that is ready.
func await(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		found, err := filepath.Glob(path)
		if err == nil && slices.ContainsFunc(found, isReady) {
			return
		}
	}
	ts.Fatalf("%s does not appear", path)
}

// isReady is true of files; a socket appears in the file system before it listens.
func isReady(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return err == nil
	}
	table, _ := os.ReadFile("/proc/net/unix")
	for line := range strings.Lines(string(table)) {
		// Num RefCount Protocol Flags ...: __SO_ACCEPTCON
		if f := strings.Fields(line); strings.HasSuffix(line, " "+path+"\n") && f[3] == "00010000" {
			return true
		}
	}
	return false
}
