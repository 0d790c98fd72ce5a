package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealblk/daemon/control"
	"sealblk/vhost/frontend"
)

// lossDeadline is how soon a pause begins after its key was lost.
const lossDeadline = 2 * time.Second

func letDisksUse(t *testing.T, state, key string) {
	t.Helper()
	mustRun(t, state, "key", "authorize", key, "--principal", "disk-service", "--allow", "generate,decrypt,reencrypt")
}

// keyedState is a state directory with the disk db under the key alias/one.
func keyedState(t *testing.T, args ...string) string {
	t.Helper()
	state := t.TempDir()
	for _, key := range []string{"alias/one", "alias/two"} {
		mustRun(t, state, "key", "create", "--alias", key)
		letDisksUse(t, state, key)
	}
	mustRun(t, state, append([]string{"disk", "create", "db", "--size", "4M", "--key", "alias/one", "--on-key-loss", "pause"}, args...)...)
	return state
}

func (s *served) status() control.Status {
	s.t.Helper()
	status, err := control.Dial(filepath.Join(s.state, "run", "db.ctl")).Status(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	return status
}

// becomes waits for a state of I/O and key. How long that takes is the matter of
// TestEveryLossPauses: here the tests beside this one may take the processors.
func (s *served) becomes(io, key string) {
	s.t.Helper()
	const limit = 5 * lossDeadline
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		now := s.status()
		if now.IOState == io && now.KeyState == key {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("after %v it is %s with a key that is %s, want %s, %s", limit, now.IOState, now.KeyState, io, key)
		}
	}
}

// pauses takes the key away, until once the disk is paused in time. A host that stands
// still delays that once, a program that is slow is late each time.
func (s *served) pauses(loss, back, key string) {
	s.t.Helper()
	var took [3]time.Duration
	for i := range took {
		mustRun(s.t, s.state, strings.Fields(loss)...)
		began := time.Now()
		s.becomes("paused", key)
		if took[i] = time.Since(began); took[i] <= lossDeadline {
			return
		}
		mustRun(s.t, s.state, strings.Fields(back)...)
		s.becomes("running", "usable")
	}
	s.t.Fatalf("%s: paused after %v, want %v", loss, took, lossDeadline)
}

// stays checks that nothing changes for longer than it takes to see a change.
func (s *served) stays(io string) {
	s.t.Helper()
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if now := s.status(); now.IOState != io {
			s.t.Fatalf("it is %s, with a key that is %s", now.IOState, now.KeyState)
		}
	}
}

func wrote(t *testing.T, d *frontend.Disk, text string) {
	t.Helper()
	block := make([]byte, 512)
	copy(block, text)
	if _, err := d.Queue(0).WriteAt(block, 0); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t *testing.T, d *frontend.Disk, text string) {
	t.Helper()
	block := make([]byte, 512)
	if _, err := d.Queue(0).ReadAt(block, 0); err != nil || !bytes.HasPrefix(block, []byte(text)) {
		t.Fatalf("reads %q, %v", block[:16], err)
	}
}

// records counts the audit log.
func records(t *testing.T, state string) int {
	t.Helper()
	var list []json.RawMessage
	if err := json.Unmarshal([]byte(mustRun(t, state, "audit", "list", "--output", "json")), &list); err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestEveryLossPauses: in the sandbox, each way to take a key from the disk service pauses
// its disk within two seconds, and each way back has it go on. To watch leaves no trace in
// the audit log.
func TestEveryLossPauses(t *testing.T) {
	state := keyedState(t)
	s := serve(t, state, server(state, "export", "db"))
	s.becomes("running", "usable")
	d := s.connect()
	defer d.Close()
	wrote(t, d, "before")
	for _, c := range []struct{ loss, back, key string }{
		{"key disable alias/one", "key enable alias/one", "disabled"},
		{"key schedule-deletion alias/one --days 7 --force", "key cancel-deletion alias/one", "pending-deletion"},
		{"key revoke alias/one --principal disk-service", "key authorize alias/one --principal disk-service --allow decrypt", "access-denied"},
	} {
		s.pauses(c.loss, c.back, c.key)
		n := records(t, state)
		s.stays("paused")
		if now := records(t, state); now != n {
			t.Errorf("%s: %d records while nothing happened", c.loss, now-n)
		}
		mustRun(t, state, strings.Fields(c.back)...)
		s.becomes("running", "usable")
		mustRead(t, d, "before")
	}
	confined(t, s.cmd.Process.Pid)
	mustRun(t, state, "audit", "verify")
	mustRun(t, state, "key", "disable", "alias/one")
	s.becomes("paused", "disabled")
	s.signal(syscall.SIGTERM)
	s.endsClean()
}

// TestRewrappedDiskDependsOnItsNewKey: of a disk that was wrapped anew while it was in use
// the old key may go, and the new one may not.
func TestRewrappedDiskDependsOnItsNewKey(t *testing.T) {
	state := keyedState(t)
	s := serve(t, state, server(state, "export", "db"))
	d := s.connect()
	defer d.Close()
	wrote(t, d, "rewrapped")
	mustRun(t, state, "disk", "rewrap", "db", "--key", "alias/two")
	mustRun(t, state, "key", "disable", "alias/one")
	s.stays("running")
	mustRun(t, state, "key", "disable", "alias/two")
	s.becomes("paused", "disabled")
	mustRun(t, state, "key", "enable", "alias/two")
	s.becomes("running", "usable")
	mustRead(t, d, "rewrapped")
}

// TestEscrowBringsAPausedDiskBack: a key that is gone for good need not end a VM that waits
// for it: its disk gets another one, by way of the escrow.
func TestEscrowBringsAPausedDiskBack(t *testing.T) {
	state := keyedState(t, "--escrow-key", "alias/two")
	s := serve(t, state, server(state, "export", "db"))
	d := s.connect()
	defer d.Close()
	wrote(t, d, "rescued")
	mustRun(t, state, "key", "schedule-deletion", "alias/one", "--days", "7", "--force")
	s.becomes("paused", "pending-deletion")
	mustRun(t, state, "key", "create", "--alias", "alias/three")
	letDisksUse(t, state, "alias/three")
	mustRun(t, state, "disk", "rewrap", "db", "--use-escrow", "--key", "alias/three")
	s.becomes("running", "usable")
	mustRead(t, d, "rescued")
}

// TestEscrowIsRevokedByItself: a disk that was opened by its key in escrow depends on that.
func TestEscrowIsRevokedByItself(t *testing.T) {
	state := keyedState(t, "--escrow-key", "alias/two")
	s := serve(t, state, server(state, "export", "db", "--use-escrow", "--log-level", "error"))
	d := s.connect()
	defer d.Close()
	wrote(t, d, "escrow")
	mustRun(t, state, "key", "disable", "alias/one")
	s.stays("running")
	mustRun(t, state, "key", "disable", "alias/two")
	s.becomes("paused", "disabled")
	mustRun(t, state, "key", "enable", "alias/two")
	s.becomes("running", "usable")
	mustRead(t, d, "escrow")
}

// TestBrokerGone: an export whose broker was killed goes on, and says that nobody watches
// its key.
func TestBrokerGone(t *testing.T) {
	state := keyedState(t)
	s := serve(t, state, server(state, "export", "db"))
	s.becomes("running", "usable")
	if err := syscall.Kill(s.broker(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.becomes("running", "unknown")
	mustRun(t, state, "key", "disable", "alias/one")
	s.stays("running")
}

// TestPolicyOfAnExportThatRuns: disk set reaches it, and disk show tells.
func TestPolicyOfAnExportThatRuns(t *testing.T) {
	state := keyedState(t)
	s := serve(t, state, server(state, "export", "db"))
	mustRun(t, state, "disk", "set", "db", "--on-key-loss", "keep")
	mustRun(t, state, "key", "disable", "alias/one")
	s.becomes("running", "disabled")
	if out := mustRun(t, state, "disk", "show", "db"); !strings.Contains(out, "disabled") || !strings.Contains(out, "running") {
		t.Errorf("disk show says\n%s", out)
	}
	mustRun(t, state, "disk", "set", "db", "--on-key-loss", "pause")
	s.becomes("paused", "disabled")
	out, err := program(t, state, "export", "db", "--socket-path", filepath.Join(state, "other")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use") {
		t.Errorf("a second export: %v, %s", err, out)
	}
}

// TestKeyDeadlineIsChecked: a time that is none is a wrong usage.
func TestKeyDeadlineIsChecked(t *testing.T) {
	state := keyedState(t)
	for _, args := range []string{"export db --key-deadline 1ms", "disk attach db --qmp /none --key-deadline 2h"} {
		out, err := program(t, state, strings.Fields(args)...).CombinedOutput()
		if code := exitCode(err); code != 2 || !strings.Contains(string(out), "1s to 1h") {
			t.Errorf("%s: exit code %d, %s", args, code, out)
		}
	}
}

func exitCode(err error) int {
	var failed interface{ ExitCode() int }
	if errors.As(err, &failed) {
		return failed.ExitCode()
	}
	return 0
}
