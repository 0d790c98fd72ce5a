package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/daemon/control"
	"sealblk/internal/leaktest"
	"sealblk/internal/sandbox"
	"sealblk/vhost/frontend"
)

var featureOf = map[uint32]uint{
	frontend.TypeDiscard: frontend.FeatureDiscard, frontend.TypeWriteZeroes: frontend.FeatureWriteZeroes,
}

// TestDataPathInTheSandbox: everything a guest may ask works behind the sandbox, with
// both ways of doing I/O, for one front-end after the other, and every thread is in it.
func TestDataPathInTheSandbox(t *testing.T) {
	for _, engine := range []string{"uring", "threads"} {
		t.Run(engine, func(t *testing.T) {
			state := newState(t)
			s := serve(t, state, server(state, "export", "db", "--io-engine", engine))
			want := bytes.Repeat([]byte("sandbox!"), 1<<17) // 1 MiB
			for range 2 {
				d := s.connect()
				for i := range len(d.Queues()) {
					q := d.Queue(i)
					if _, err := q.WriteAt(want, 1<<20); err != nil {
						t.Fatal(err)
					}
					if err := q.Flush(); err != nil {
						t.Fatal(err)
					}
					got := make([]byte, len(want))
					if _, err := q.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, want) {
						t.Fatalf("reads something else: %v", err)
					}
					erased := frontend.Range{Sector: 2048, Sectors: 8}
					for _, typ := range []uint32{frontend.TypeDiscard, frontend.TypeWriteZeroes} {
						if !d.Has(featureOf[typ]) {
							continue
						}
						if err := q.Erase(typ, erased); err != nil {
							t.Fatal(err)
						}
						if _, err := q.ReadAt(got[:4096], 1<<20); err != nil || !bytes.Equal(got[:4096], make([]byte, 4096)) {
							t.Fatalf("after request %d the range is not zeros: %v", typ, err)
						}
					}
				}
				confined(t, s.cmd.Process.Pid)
				d.Close()
			}
			status, err := control.Dial(filepath.Join(state, "run", "db.ctl")).Status(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if !on(status.Sandbox, sandbox.LayerSeccomp) || !on(status.Sandbox, sandbox.LayerCapabilities) {
				t.Errorf("status says %v", status.Sandbox)
			}
			s.signal(syscall.SIGTERM)
			s.endsClean()
		})
	}
}

func on(r sandbox.Report, name string) bool {
	for _, l := range r {
		if l.Name == name {
			return l.On
		}
	}
	return false
}

// confined checks every thread of an export.
func confined(t *testing.T, pid int) {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	want := []string{"Seccomp:\t2\n", "NoNewPrivs:\t1\n", "CapEff:\t0000000000000000\n"}
	if os.Geteuid() == 0 {
		want = append(want, "Uid:\t65534\t65534\t65534\t65534\n", "CapBnd:\t0000000000000000\n")
	}
	for _, path := range paths {
		status, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		for _, line := range want {
			if !bytes.Contains(status, []byte(line)) {
				t.Errorf("%s lacks %q", path, line)
			}
		}
	}
}

// children of a process.
func children(t *testing.T, pid int) (pids []int) {
	t.Helper()
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		for _, word := range strings.Fields(string(text)) {
			n, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
	}
	return pids
}

// broker is the one child of an export.
func (s *served) broker() int {
	s.t.Helper()
	pids := children(s.t, s.cmd.Process.Pid)
	if len(pids) != 1 {
		s.t.Fatalf("the export has the children %v, want one broker", pids)
	}
	return pids[0]
}

// gone waits until a process that is not our child has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 {
			t.Fatalf("process %d does not end: %v", pid, err)
		}
		return
	}
}

// TestWorkerKilled: an export that was killed can be started again at once, and its
// broker does not outlive it.
func TestWorkerKilled(t *testing.T) {
	state := newState(t)
	s := serve(t, state, server(state, "export", "db"))
	assistant := s.broker()
	s.signal(syscall.SIGKILL)
	s.cmd.Wait()
	s = serve(t, state, server(state, "export", "db"))
	gone(t, assistant)
	d := s.connect()
	defer d.Close()
	if _, err := d.Queue(0).WriteAt(make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGTERM)
	s.endsClean()
}

// TestBrokerKilled: the worker serves on, and ends well. What it leaves behind is no
// hindrance to the next.
func TestBrokerKilled(t *testing.T) {
	state := newState(t)
	s := serve(t, state, server(state, "export", "db"))
	assistant := s.broker()
	if err := unix.Kill(assistant, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d := s.connect()
	if _, err := d.Queue(0).WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	d.Close()
	s.signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		t.Fatalf("the worker failed without its broker: %v", err)
	}
	s = serve(t, state, server(state, "export", "db"))
	s.signal(syscall.SIGTERM)
	s.endsClean()
}

// TestSignalToTheGroup: a terminal and systemd signal the broker too, which must not
// end before its worker has drained.
func TestSignalToTheGroup(t *testing.T) {
	state := newState(t)
	cmd := server(state, "export", "db")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s := serve(t, state, cmd)
	assistant := s.broker()
	if err := unix.Kill(-cmd.Process.Pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.endsClean()
	gone(t, assistant)
}

// TestSandboxOff: the configuration can switch it off, and the export warns.
func TestSandboxOff(t *testing.T) {
	state := newState(t)
	config := filepath.Join(t.TempDir(), "config")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("[worker]\nsandbox = \"off\"\n")
	cmd := program(t, state, "--config", config, "export", "db")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := control.Dial(filepath.Join(state, "run", "db.ctl"))
	for _, err := client.Status(context.Background()); err != nil; _, err = client.Status(context.Background()) {
		time.Sleep(10 * time.Millisecond) // until it listens
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !bytes.Contains(status, []byte("Seccomp:\t0\n")) {
		t.Errorf("the sandbox is on: %v", err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil || !strings.Contains(log.String(), "the sandbox is off") {
		t.Errorf("%v, said %q", err, log.String())
	}

	for _, text := range []string{"[worker]\nsandbox = \"maybe\"\n", "[worker]\nuser = \"no-such-user\"\n", "[worker]\nuser = \"root\"\n"} {
		write(text)
		out, err := program(t, state, "--config", config, "export", "db").CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitFailed || bytes.Count(out, []byte("\n")) != 1 {
			t.Errorf("%q: %v, said %q", text, err, out)
		}
	}
}

// TestWorkerUser: the configuration chooses whom exports become.
func TestWorkerUser(t *testing.T) {
	if os.Geteuid() != 0 {
		leaktest.Missing(t, "root")
	}
	state := newState(t)
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("[worker]\nuser = \"daemon\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, state, server(state, "--config", config, "export", "db"))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil || !bytes.Contains(status, []byte("Uid:\t1\t1\t1\t1\n")) {
		t.Errorf("%s, %v", status, err)
	}
	s.signal(syscall.SIGTERM)
	s.endsClean()
}

// TestBrokerAlone: nobody starts it by hand.
func TestBrokerAlone(t *testing.T) {
	out, err := program(t, t.TempDir(), brokerName).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("sealblk export starts it")) {
		t.Errorf("%v, said %q", err, out)
	}
}
