package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/internal/leaktest"
)

// helperEnv makes the test program the process that goes into the sandbox.
const helperEnv = "SANDBOX_TEST_HELPER"

// rootEnv tells the helper that it is started as root.
const rootEnv = "SANDBOX_TEST_ROOT"

func TestMain(m *testing.M) {
	if user, ok := os.LookupEnv(helperEnv); ok {
		helper(user)
		return
	}
	leaktest.Main(m)
}

// usual is what the helper found as the default user; it runs once.
var usual = struct {
	sync.Mutex
	*findings
}{}

// confine runs the helper and returns what it found.
func confine(t *testing.T, user string) findings {
	t.Helper()
	if user != "" {
		return run(t, exec.Command("/proc/self/exe"), user)
	}
	usual.Lock()
	defer usual.Unlock()
	if usual.findings == nil {
		f := run(t, exec.Command("/proc/self/exe"), "")
		usual.findings = &f
	}
	return *usual.findings
}

func run(t *testing.T, cmd *exec.Cmd, user string) (f findings) {
	t.Helper()
	cmd.Env = append(os.Environ(), helperEnv+"="+user)
	if os.Geteuid() == 0 && cmd.SysProcAttr == nil {
		cmd.Env = append(cmd.Env, rootEnv+"=1")
	}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(stdout).Decode(&f); err != nil {
		t.Errorf("helper said no findings: %v", err)
	}
	f.Threads = tasks(t, cmd.Process.Pid)
	stdin.Close() // it lives until then
	if err := cmd.Wait(); err != nil {
		t.Fatalf("helper: %v", err)
	}
	return f
}

// tasks is the status of every thread of a process.
func tasks(t *testing.T, pid int) map[string]map[string]string {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]map[string]string)
	for _, path := range paths {
		status, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		m[path] = fields(status)
	}
	return m
}

func layer(t *testing.T, r Report, name string) Layer {
	t.Helper()
	for _, l := range r {
		if l.Name == name {
			return l
		}
	}
	t.Fatalf("no layer %q in %v", name, r)
	return Layer{}
}

// TestForbidden: what a process that was broken into would try fails.
func TestForbidden(t *testing.T) {
	f := confine(t, "")
	if len(f.Refused) != len(attempts) {
		t.Fatalf("%d of %d attempts were made", len(f.Refused), len(attempts))
	}
	for what, err := range f.Refused {
		if !strings.Contains(err, "not permitted") && !strings.Contains(err, "permission denied") && !strings.Contains(err, "not implemented") {
			t.Errorf("%s: %q, want it refused", what, err)
		}
	}
}

// TestForbiddenToOperationsOfTheRing: io_uring passes by seccomp, so the other layers
// must refuse what it could open and connect to.
func TestForbiddenToOperationsOfTheRing(t *testing.T) {
	f := confine(t, "")
	if f.Ring == nil {
		leaktest.Missing(t, "io_uring")
	}
	for what, err := range f.Ring {
		if err == "" {
			t.Errorf("%s by io_uring was allowed", what)
		}
	}
}

// TestStillPossible: the data path's calls work in the sandbox.
func TestStillPossible(t *testing.T) {
	f := confine(t, "")
	for what, err := range f.Possible {
		if err != "" {
			t.Errorf("%s: %s", what, err)
		}
	}
	if len(f.Possible) == 0 {
		t.Fatal("nothing was tried")
	}
}

// TestEveryThread: threads that ran before, and threads that were started later, are
// in the sandbox.
func TestEveryThread(t *testing.T) {
	f := confine(t, "")
	if len(f.Threads) < 2*threads {
		t.Fatalf("only %d threads were seen", len(f.Threads))
	}
	want := map[string]string{
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
		"CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
	}
	if os.Geteuid() == 0 {
		want["CapBnd"] = "0000000000000000"
		want["Groups"] = ""
		want["Uid"] = strings.Repeat("65534 ", 3) + "65534"
		want["Gid"] = want["Uid"]
	}
	for tid, status := range f.Threads {
		for key, value := range want {
			if status[key] != value {
				t.Errorf("thread %s: %s is %q, want %q", tid, key, status[key], value)
			}
		}
	}
}

func TestReport(t *testing.T) {
	f := confine(t, "")
	for _, name := range []string{LayerUser, LayerCapabilities, LayerNoNewPrivs, LayerCore, LayerSeccomp} {
		if l := layer(t, f.Report, name); !l.On {
			t.Errorf("%s is off: %s", name, l.Detail)
		}
	}
	if os.Geteuid() == 0 {
		if l := layer(t, f.Report, LayerNetwork); !l.On {
			t.Errorf("%s is off: %s", l.Name, l.Detail)
		}
	}
	if _, err := os.Stat("/sys/kernel/security/landlock"); err == nil {
		if l := layer(t, f.Report, LayerLandlock); !l.On {
			t.Errorf("%s is off: %s", l.Name, l.Detail)
		}
	}
}

func TestUserByName(t *testing.T) {
	if os.Geteuid() != 0 {
		leaktest.Missing(t, "root")
	}
	for _, name := range []string{"daemon", "1"} {
		f := confine(t, name)
		for tid, status := range f.Threads {
			if status["Uid"] != "1 1 1 1" {
				t.Errorf("user %s: thread %s has uid %s", name, tid, status["Uid"])
			}
		}
	}
}

func TestRefusesUsers(t *testing.T) {
	for _, name := range []string{"root", "0", "no-such-user", "-1"} {
		if _, err := lookup(name); err == nil {
			t.Errorf("user %q was accepted", name)
		}
	}
}

// TestUnprivilegedStart: who is not root gets the layers that need no root.
func TestUnprivilegedStart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests run without root already")
	}
	program := filepath.Join(t.TempDir(), "helper")
	copyExecutable(t, program)
	cmd := exec.Command(program)
	cmd.SysProcAttr = asNobody()
	f := run(t, cmd, "")
	if l := layer(t, f.Report, LayerNetwork); l.On {
		t.Error("says that it made a network namespace")
	}
	for _, name := range []string{LayerUser, LayerCapabilities, LayerNoNewPrivs, LayerCore, LayerSeccomp} {
		if l := layer(t, f.Report, name); !l.On {
			t.Errorf("%s is off: %s", name, l.Detail)
		}
	}
	for what, err := range f.Refused {
		if err == "" {
			t.Errorf("%s was allowed", what)
		}
	}
}

func copyExecutable(t *testing.T, to string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(to); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProbeChangesNothing(t *testing.T) {
	before, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Probe(Policy{})
	if err != nil || len(r) == 0 {
		t.Fatalf("probe: %v, %v", r, err)
	}
	after, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"Uid", "CapBnd", "CapEff", "NoNewPrivs", "Seccomp"} {
		if fields(before)[key] != fields(after)[key] {
			t.Errorf("%s changed", key)
		}
	}
	if _, err := Probe(Policy{User: "no-such-user"}); err == nil {
		t.Error("an unknown user was accepted")
	}
}

func TestReportNamesWhatIsLacking(t *testing.T) {
	r := Report{on(LayerUser, "x"), off(LayerLandlock, errNoLandlock)}
	if got := r.String(); got != LayerUser {
		t.Errorf("String %q", got)
	}
	if got := r.Lacking(); len(got) != 1 || !strings.Contains(got[0], LayerLandlock) {
		t.Errorf("Lacking %q", got)
	}
	if got := (Report{}).String(); got != "none" {
		t.Errorf("String of nothing %q", got)
	}
}

// fields is /proc/PID/status as a map.
func fields(status []byte) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(string(status)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			m[key] = strings.Join(strings.Fields(value), " ")
		}
	}
	return m
}
