package leaktest

import (
	"flag"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long descriptors that are on their way out may take.
const patience = 2 * time.Second

// Main runs the tests and exits: with the tests' status if they failed, with 1 if
// they passed and left something behind, which it names on stderr. Each of also
// looks for one more kind of leftover, that package's own.
func Main(m *testing.M, also ...func() error) {
	os.Exit(run(m.Run, os.Stderr, also...))
}

func run(tests func() int, out io.Writer, also ...func() error) int {
	wakePoller()
	before := openFDs()
	status := tests()
	if status != 0 || fuzzing() {
		return status
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintf(out, "leaktest: goroutines left: %v\n", err)
		status = 1
	}
	for _, check := range also {
		if err := check(); err != nil {
			fmt.Fprintf(out, "leaktest: %v\n", err)
			status = 1
		}
	}
	if left := leftFDs(before, patience); len(left) > 0 {
		for _, l := range left {
			fmt.Fprintf(out, "leaktest: file descriptor left open: %s\n", l)
		}
		status = 1
	}
	return status
}

// fuzzing tells whether this process is part of a `go test -fuzz` run.
func fuzzing() bool {
	for name, off := range map[string]string{"test.fuzzworker": "false", "test.fuzz": ""} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != off {
			return true
		}
	}
	return false
}

// Tool returns the path of an external program that the test needs.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := lookTool(name)
	if err != nil {
		Missing(t, "the program "+name)
	}
	return path
}

// Missing ends the test because the machine lacks something that it needs: a skip
// with that reason, a failure under CI=true.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("this machine lacks %s (CI=true: nothing may be skipped)", what)
	}
	t.Skipf("this machine lacks %s", what)
}

// Elsewhere skips the test because this machine lacks something, under CI=true too:
// another test of the suite that CI runs brings a machine that has it, and fails where
// this one is skipped there.
func Elsewhere(t testing.TB, what, where string) {
	t.Helper()
	t.Skipf("this machine lacks it: %s; run by %s", what, where)
}
