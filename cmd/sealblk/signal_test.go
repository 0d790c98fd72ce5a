package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/daemon/control"
	"sealblk/keymgr/kmip/kmiptest"
	"sealblk/vhost/frontend"
)

const patience = 20 * time.Second

// ends is how long a program may take that is to end.
const ends = 3 * patience

// program runs the program in a process of its own, on a state directory, until it should
// have ended.
func program(t *testing.T, state string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ends)
	t.Cleanup(cancel)
	return programFor(ctx, state, args...)
}

// server runs the program for as long as the test takes, which ends it.
func server(state string, args ...string) *exec.Cmd {
	return programFor(context.Background(), state, args...)
}

func programFor(ctx context.Context, state string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sealblk", args...) // testscript.Main put it there
	cmd.Env = append(os.Environ(), "SEALBLK_STATE_DIR="+state)
	return cmd
}

// hurry kills a server that takes too long for what is asked of it, unless it is stopped.
func hurry(cmd *exec.Cmd) (stop func() bool) {
	return time.AfterFunc(ends, func() { cmd.Process.Kill() }).Stop
}

func mustRun(t *testing.T, state string, args ...string) string {
	t.Helper()
	out, err := program(t, state, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("sealblk %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// served is an export in a process of its own.
type served struct {
	t      *testing.T
	cmd    *exec.Cmd
	state  string
	socket string
	stderr io.ReadCloser
}

// serve starts an export of the disk db and returns when it is ready.
func serve(t *testing.T, state string, cmd *exec.Cmd) *served {
	t.Helper()
	s := &served{t: t, cmd: cmd, state: state, socket: filepath.Join(state, "run", "db.sock")}
	var err error
	if s.stderr, err = cmd.StderrPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	defer hurry(cmd)()
	for log := bufio.NewReader(s.stderr); ; {
		line, err := log.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "sealblk: warning: ") && !strings.Contains(line, "ready") {
			t.Fatalf("%q, %v", line, err)
		}
		if strings.Contains(line, "ready") {
			return s
		}
	}
}

func (s *served) connect() *frontend.Disk {
	s.t.Helper()
	d, err := frontend.Open(context.Background(), s.socket, frontend.Options{Timeout: patience})
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *served) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// endsClean waits for the export, which must leave nothing.
func (s *served) endsClean() {
	s.t.Helper()
	defer hurry(s.cmd)()
	if err := s.cmd.Wait(); err != nil {
		s.t.Fatalf("export: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(s.state, "run"))
	if err != nil || len(left) > 0 {
		s.t.Fatalf("left behind: %v, %v", left, err)
	}
}

// newState is a state directory with one encrypted disk, db.
func newState(t *testing.T) string {
	t.Helper()
	state := t.TempDir()
	mustRun(t, state, "disk", "create", "db", "--size", "4M", "--encrypted")
	return state
}

// TestSignalsDrain: a signal while requests are in flight ends the export with 0, and
// what it had confirmed is there.
func TestSignalsDrain(t *testing.T) {
	// What nohup starts ignores the hang-up, and so would the export: not if it is caught.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			state := newState(t)
			s := serve(t, state, server(state, "export", "db"))
			d := s.connect()
			confirmed := make(chan int)
			go func() {
				n := 0
				for ; n < 1<<20; n++ {
					if n == 16 {
						s.cmd.Process.Signal(sig)
					}
					block := bytes.Repeat([]byte{byte(n%255 + 1)}, 4096)
					if _, err := d.Queue(0).WriteAt(block, int64(n%1024)*4096); err != nil {
						break
					}
				}
				confirmed <- n
			}()
			n := <-confirmed
			s.endsClean()
			d.Close()

			s = serve(t, state, server(state, "export", "db"))
			d = s.connect()
			defer d.Close()
			for i := max(0, n-1024); i < n; i++ {
				got := make([]byte, 4096)
				if _, err := d.Queue(0).ReadAt(got, int64(i%1024)*4096); err != nil || got[0] != byte(i%255+1) {
					t.Fatalf("confirmed write %d of %d reads %#x, %v", i, n, got[0], err)
				}
			}
			s.signal(syscall.SIGTERM)
			s.endsClean()
		})
	}
}

// TestSilentFrontEndDoesNotHoldUp: a front-end that stopped within a message, and one
// that waits in the queue behind it.
func TestSilentFrontEndDoesNotHoldUp(t *testing.T) {
	state := newState(t)
	s := serve(t, state, server(state, "export", "db"))
	for range 2 {
		conn, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte{1, 0, 0}); err != nil {
			t.Fatal(err)
		}
	}
	s.signal(syscall.SIGTERM)
	s.endsClean()
}

// TestIgnoredSignalsStayIgnored: nohup and background jobs of scripts mean it.
func TestIgnoredSignalsStayIgnored(t *testing.T) {
	state := newState(t)
	cmd := server(state)
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `trap "" HUP INT; exec sealblk export db`}
	s := serve(t, state, cmd)
	s.signal(syscall.SIGHUP)
	s.signal(syscall.SIGINT)
	d := s.connect()
	if _, err := d.Queue(0).WriteAt(make([]byte, 512), 0); err != nil {
		t.Fatalf("the export stopped serving: %v", err)
	}
	d.Close()
	s.signal(syscall.SIGTERM)
	s.endsClean()
}

// TestServesOnWithoutItsLog: the reader of stderr goes, then the export has something
// to say.
func TestServesOnWithoutItsLog(t *testing.T) {
	state := newState(t)
	s := serve(t, state, server(state, "export", "db"))
	s.stderr.Close()
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(bytes.Repeat([]byte{0xff}, 64)); err != nil { // not the protocol: a warning
		t.Fatal(err)
	}
	io.Copy(io.Discard, conn)
	conn.Close()
	d := s.connect()
	if _, err := d.Queue(0).WriteAt(make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	d.Close()
	s.signal(syscall.SIGTERM)
	s.endsClean()
}

// TestLaterSignalKills: a command that is stuck where it cannot be cancelled survives a
// signal that is sent twice at once, as supervisors do, but not one that comes later.
func TestLaterSignalKills(t *testing.T) {
	state := newState(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	full, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for err == nil { // until there is no room for a key
		_, err = unix.Write(int(full.Fd()), make([]byte, 4096))
	}
	cmd := program(t, state, "disk", "export-key", "db", "--out", fifo, "--yes-i-know")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitOpen(t, cmd.Process.Pid, fifo)
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	every := time.NewTicker(50 * time.Millisecond)
	defer every.Stop()
	for {
		select {
		case err = <-ended:
		case <-every.C:
			cmd.Process.Signal(syscall.SIGTERM)
			continue
		}
		break
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Fatalf("ended with %v", err)
	}
	if took := time.Since(began); took < again {
		t.Fatalf("killed after %v, while it might have been ending in order", took)
	}
}

// TestGivesUpAPipe: the first Ctrl-C ends a command that waits for somebody to write, or
// to read.
func TestGivesUpAPipe(t *testing.T) {
	state := newState(t)
	mustRun(t, state, "key", "create", "--alias", "alias/own", "--origin", "external")
	fifo := filepath.Join(state, "pipe")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(state, "root.toml")
	if err := os.WriteFile(config, []byte("[kms.local.root]\nsource = \"passphrase\"\npassphrase_file = \""+fifo+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	credential := filepath.Join(state, "credential.toml")
	if err := os.WriteFile(credential, []byte("[kms.local.root]\nsource = \"credential\"\ncredential = \""+fifo+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--config", credential, "kms", "root", "set"},
		{"key", "import", "alias/own", "--material", fifo},
		{"--state-dir", t.TempDir(), "kms", "restore", fifo},
		{"kms", "backup", "--out", filepath.Join(state, "backup"), "--passphrase-file", fifo},
		{"--config", config, "kms", "root", "set"},
		{"kms", "root", "set", "--source", "passphrase", "--new-passphrase-file", fifo},
		{"disk", "export-key", "db", "--out", fifo, "--yes-i-know"},
	} {
		wantGivenUp(t, state, fifo, args...)
	}
	wrapped := credentialState(t)
	wantGivenUp(t, wrapped, filepath.Join(wrapped, "credential"), "--config", credential, "key", "list")
}

// TestGivesUpACredential: the first signal ends a wait for what a service is to know this
// host by.
func TestGivesUpACredential(t *testing.T) {
	state := newState(t)
	fifo, config := filepath.Join(state, "pipe"), filepath.Join(state, "kms.toml")
	dir := kmiptest.Certificates(t)
	text := fmt.Sprintf(`
[kms.vault]
address = "http://127.0.0.1:1"
token_file = %[1]q
timeout = "1h"
[kms.aws]
endpoint = "http://127.0.0.1:1"
credentials = %[1]q
timeout = "1h"
[kms.aliyun]
endpoint = "http://127.0.0.1:1"
credentials = %[1]q
timeout = "1h"
[kms.kmip]
address = "127.0.0.1:1"
certificate = %[2]q
key = %[1]q
timeout = "1h"
`, fifo, filepath.Join(dir, "client.pem"))
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.WriteFile(config, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"vault:transit/disks", "aws:eu-west-1/alias/disks", "aliyun:local/key", "kmip:1"} {
		wantGivenUp(t, state, fifo, "--config", config, "disk", "create", "new", "--size", "1M", "--key", key)
	}
}

// wantGivenUp signals a command when it waits for a pipe.
func wantGivenUp(t *testing.T, state, pipe string, args ...string) {
	t.Helper()
	var said bytes.Buffer
	cmd := program(t, state, args...)
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitPipe(t, cmd.Process.Pid, pipe)
	cmd.Process.Signal(syscall.SIGINT)
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer kill.Stop()
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(said.String(), "interrupted") {
		t.Errorf("%q ended with %v, %d: %s", args, cmd.ProcessState, code, said.String())
	}
}

// credentialState has a root key under a credential that has become a pipe.
func credentialState(t *testing.T) string {
	t.Helper()
	state := newState(t)
	file, config := filepath.Join(state, "credential"), filepath.Join(state, "root.toml")
	for path, text := range map[string]string{
		file: strings.Repeat("k", 64), config: "[kms.local.root]\nsource = \"credential\"\ncredential = \"" + file + "\"\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, state, "--config", config, "kms", "root", "set")
	if err := errors.Join(os.Remove(file), unix.Mkfifo(file, 0o600)); err != nil {
		t.Fatal(err)
	}
	return state
}

// TestGivesUpARestore: one that waits for the rest of a backup leaves nothing behind.
func TestGivesUpARestore(t *testing.T) {
	state, dir := newState(t), t.TempDir()
	pass, saved, fifo := filepath.Join(dir, "pass"), filepath.Join(dir, "backup"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(pass, []byte("correct horse"), 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	mustRun(t, state, "kms", "backup", "--out", saved, "--passphrase-file", pass)
	data, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if _, err := pipe.Write(data[:len(data)-1]); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	var said bytes.Buffer
	cmd := program(t, state, "--state-dir", other, "kms", "restore", fifo, "--passphrase-file", pass)
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, filepath.Join(other, "kms.restore", "keys"))
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(said.String(), "interrupted") {
		t.Errorf("ended with %v, %d: %s", cmd.ProcessState, code, said.String())
	}
	if left, err := os.ReadDir(other); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// awaitFile waits until a file is there.
func awaitFile(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("%s does not appear", path)
}

// awaitOpen waits until a process has a file open.
func awaitOpen(t *testing.T, pid int, path string) {
	t.Helper()
	until(t, fmt.Sprintf("process %d to open %s", pid, path), func() bool { return hasOpen(pid, path) })
}

// awaitPipe waits until a process has a pipe open, or sleeps until it has.
func awaitPipe(t *testing.T, pid int, path string) {
	t.Helper()
	until(t, fmt.Sprintf("process %d to open %s", pid, path), func() bool { return hasOpen(pid, path) || isBlocked(pid, unix.SYS_OPENAT) })
}

func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if so() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

func isBlocked(pid int, call uint64) bool {
	threads, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "syscall"))
	return slices.ContainsFunc(threads, func(file string) bool {
		text, _ := os.ReadFile(file) // "running" unless it sleeps
		return strings.HasPrefix(string(text), fmt.Sprintf("%d ", call))
	})
}

func hasOpen(pid int, path string) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, _ := os.ReadDir(dir)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		return target == path
	})
}

// TestControlSocketIsPrivate: only its owner can stop an export, or connect to it.
func TestControlSocketIsPrivate(t *testing.T) {
	state := newState(t)
	s := serve(t, state, server(state, "export", "db"))
	path := filepath.Join(state, "run", "db.ctl")
	for _, p := range []string{path, s.socket} {
		info, err := os.Stat(p)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%s: mode %v, %v", p, info.Mode(), err)
		}
	}
	if err := control.Dial(path).Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.endsClean()
}
