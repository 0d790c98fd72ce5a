package leaktest

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

func TestRunPassesCleanTests(t *testing.T) {
	var out strings.Builder
	status := run(func() int {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		return 0
	}, &out)
	if status != 0 || out.String() != "" {
		t.Fatalf("status %d, output %q", status, out.String())
	}
}

func TestRunNamesLeftDescriptor(t *testing.T) {
	var fd int
	var out strings.Builder
	status := run(func() int {
		var err error
		if fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return 0
	}, &out)
	unix.Close(fd)
	if status != 1 || !strings.Contains(out.String(), "eventfd") {
		t.Fatalf("status %d, output %q", status, out.String())
	}
}

func TestRunNamesLeftGoroutine(t *testing.T) {
	stop := make(chan struct{})
	var out strings.Builder
	status := run(func() int {
		go waitForever(stop)
		return 0
	}, &out)
	close(stop)
	if status != 1 || !strings.Contains(out.String(), "waitForever") {
		t.Fatalf("status %d, output %q", status, out.String())
	}
}

func waitForever(stop chan struct{}) { <-stop }

func TestRunKeepsFailureStatus(t *testing.T) {
	var out strings.Builder
	if status := run(func() int { return 7 }, &out); status != 7 {
		t.Fatalf("status %d", status)
	}
}

func TestNewFDsSeesReusedNumber(t *testing.T) {
	before := map[int]string{0: "/dev/null", 5: "pipe:[1]"}
	now := map[int]string{0: "/dev/null", 5: "socket:[2]"}
	if got := newFDs(before, now); len(got) != 1 || got[0] != "5 -> socket:[2]" {
		t.Fatalf("got %q", got)
	}
}

// verdict records how a test was ended: by the first call, as in a real test.
type verdict struct {
	testing.TB
	skipped, failed bool
}

func (v *verdict) Helper()               {}
func (v *verdict) Skipf(string, ...any)  { v.skipped = !v.failed }
func (v *verdict) Fatalf(string, ...any) { v.failed = !v.skipped }

func TestToolSkipsLocallyAndFailsInCI(t *testing.T) {
	for _, c := range []struct {
		ci, tool        string
		skipped, failed bool
	}{
		{"", "sh", false, false},
		{"true", "sh", false, false},
		{"", "no-such-program-here", true, false},
		{"true", "no-such-program-here", false, true},
	} {
		t.Setenv("CI", c.ci)
		v := &verdict{TB: t}
		path := Tool(v, c.tool)
		if v.skipped != c.skipped || v.failed != c.failed || (path != "") != (c.tool == "sh") {
			t.Errorf("CI=%q %s: skipped %v, failed %v, path %q", c.ci, c.tool, v.skipped, v.failed, path)
		}
	}
}

func TestElsewhereSkipsInCIToo(t *testing.T) {
	for _, ci := range []string{"", "true"} {
		t.Setenv("CI", ci)
		v := &verdict{TB: t}
		Elsewhere(v, "a kernel", "another test")
		if !v.skipped || v.failed {
			t.Errorf("CI=%q: skipped %v, failed %v", ci, v.skipped, v.failed)
		}
	}
}

func TestRunNamesOtherLeftovers(t *testing.T) {
	var out strings.Builder
	clean := func() error { return nil }
	left := func() error { return errors.New("3 buffers left") }
	status := run(func() int { return 0 }, &out, clean, left)
	if status != 1 || out.String() != "leaktest: 3 buffers left\n" {
		t.Fatalf("status %d, output %q", status, out.String())
	}
}
