package conformance_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/vhost"
	"sealblk/vhost/conformance"
	"sealblk/vhost/frontend"
)

// built: there is a program to remove.
var built bool

// program builds sealblk once for all tests.
var program = sync.OnceValues(func() (string, error) {
	built = true
	dir, err := os.MkdirTemp("", "sealblk-conformance-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "sealblk")
	if out, err := exec.Command("go", "build", "-o", path, "sealblk/cmd/sealblk").CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

// export is the program as a process of its own, which can be killed.
type export struct {
	args   []string
	socket string
	cmd    *exec.Cmd
	// log is what it says once it is ready; complete when logged is closed.
	log    bytes.Buffer
	logged chan struct{}
}

func (e *export) start() error {
	path, err := program()
	if err != nil {
		return err
	}
	e.cmd = exec.Command(path, e.args...)
	stderr, err := e.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := e.cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(stderr)
	var said []string
	for lines.Scan() {
		if strings.Contains(lines.Text(), "ready:") {
			e.log.Reset()
			e.logged = make(chan struct{})
			go func() {
				defer close(e.logged)
				for lines.Scan() {
					fmt.Fprintln(&e.log, lines.Text())
				}
			}()
			return nil
		}
		said = append(said, lines.Text())
	}
	return fmt.Errorf("export is not ready: %s", strings.Join(said, "; "))
}

// kill is the end of it: SIGKILL.
func (e *export) kill() {
	_ = e.cmd.Process.Kill()
	if e.logged != nil {
		<-e.logged
	}
	_ = e.cmd.Wait() // killed on purpose
}

func (e *export) target() conformance.Target {
	return conformance.Target{Socket: e.socket, Restart: func(context.Context) error {
		e.kill()
		return e.start()
	}}
}

// run starts the program until the test ends.
func run(t *testing.T, socket string, args ...string) *export {
	t.Helper()
	e := &export{socket: socket, args: args}
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.kill)
	return e
}

// command runs the program to its end.
func command(t *testing.T, args ...string) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestExport holds the program itself to the suite, with restarts by SIGKILL and
// truncated memory: every kind of disk over both ways to reach a file.
func TestExport(t *testing.T) {
	for i, tt := range []struct {
		encrypted bool
		unit      string
		engine    string
	}{
		{true, "4096", "uring"}, {false, "512", "threads"},
		{true, "512", "uring"}, {true, "512", "threads"}, {true, "4096", "threads"},
		{false, "512", "uring"}, {false, "4096", "uring"}, {false, "4096", "threads"},
	} {
		t.Run(fmt.Sprintf("encrypted %v, %s, %s", tt.encrypted, tt.unit, tt.engine), func(t *testing.T) {
			if testing.Short() && i >= 2 {
				t.Skip("the first two are enough for a short run")
			}
			t.Parallel()
			dir := t.TempDir()
			create := []string{"--state-dir", dir, "disk", "create", "d", "--size", "48M", "--sector-size", tt.unit}
			if tt.encrypted {
				create = append(create, "--encrypted")
			}
			command(t, create...)
			socket := filepath.Join(dir, "s")
			e := run(t, socket, "--state-dir", dir, "export", "d", "--socket-path", socket, "--io-engine", tt.engine)
			conformWith(t, e.target(), patient)
		})
	}
}

// TestExportSurvivesTruncatedMemory: the program goes on, in its sandbox, and the
// operator reads in one line what became of the session.
func TestExportSurvivesTruncatedMemory(t *testing.T) {
	for _, kind := range []string{"plain", "encrypted"} {
		for _, engine := range []string{"uring", "threads"} {
			t.Run(kind+", "+engine, func(t *testing.T) {
				dir := t.TempDir()
				create := []string{"--state-dir", dir, "disk", "create", "d", "--size", "48M"}
				if kind == "encrypted" {
					create = append(create, "--encrypted")
				}
				command(t, create...)
				socket := filepath.Join(dir, "s")
				e := run(t, socket, "--state-dir", dir, "export", "d", "--socket-path", socket, "--io-engine", engine)
				o := patient
				o.Select = func(c *conformance.Case) bool { return strings.Contains(c.Name(), "memory-that-is-truncated") }
				for _, r := range conformance.Run(t.Context(), conformance.Target{Socket: socket}, o) {
					if r.Result != conformance.Pass {
						t.Errorf("%s: %s, %s", r.Name, r.Result, r.Detail)
					}
				}
				takeAway(t, socket)
				conformance.Healthy(t, conformance.Target{Socket: socket})
				e.kill()
				told := 0
				for line := range strings.Lines(e.log.String()) {
					if strings.Contains(line, vhost.ErrMemoryFault.Error()) {
						told++
					}
				}
				if told < 1 || told > 3 {
					t.Errorf("%d lines about one session and two that may have been faster: %s", told, e.log.String())
				}
			})
		}
	}
}

// takeAway truncates the memory of an idle disk, kicks, and returns when the session is
// over.
func takeAway(t *testing.T, socket string) {
	t.Helper()
	d, err := frontend.Open(t.Context(), socket, frontend.Options{})
	must(t, err)
	must(t, unix.Ftruncate(d.Memory.Regions[0].FD, 0))
	must(t, d.Queue(0).Kick.Signal())
	if _, err := d.Session.Receive(); !errors.Is(err, frontend.ErrDisconnected) {
		t.Errorf("the session goes on: %v", err)
	}
	_ = d.Close() // it is over
}

// TestExportReadOnly runs what a read-only disk leaves of the suite.
func TestExportReadOnly(t *testing.T) {
	dir := t.TempDir()
	image, socket := filepath.Join(dir, "image"), filepath.Join(dir, "s")
	if err := os.WriteFile(image, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	e := run(t, socket, "--state-dir", dir, "export", "--blk-file", image, "--socket-path", socket, "--read-only")
	report := conformWith(t, e.target(), patient)
	for _, r := range report {
		if strings.HasPrefix(r.Name, "blk/a-read-only-disk") && r.Result != conformance.Pass {
			t.Errorf("%s: %s", r.Name, r.Result)
		}
	}
}

// removeProgram runs when all tests are done.
func removeProgram() error {
	if !built {
		return nil
	}
	path, err := program()
	if err != nil {
		return nil // a test has said so
	}
	return os.RemoveAll(filepath.Dir(path))
}
