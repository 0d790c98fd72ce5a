// Package swtpm starts software TPMs for tests: Debian's swtpm, on a unix socket.
package swtpm

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sealblk/internal/leaktest"
)

// New starts a TPM 2.0 of its own, which ends with the test, and returns its socket.
func New(t testing.TB) string {
	t.Helper()
	program := leaktest.Tool(t, "swtpm")
	dir, err := os.MkdirTemp("", "swtpm-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a temporary folder
	socket := filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, program, "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		c.Wait() //nolint:errcheck // it was killed
	})
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil { // it listens
			conn.Close()
			return socket
		}
	}
	t.Fatal("swtpm does not start")
	return ""
}
