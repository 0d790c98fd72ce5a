// Package awstest runs moto, an emulator of AWS, for tests: real HTTP, real signatures
// (which moto does not check), a KMS of its own with keys, encryption contexts and
// rotation. In front of it stands a proxy that throttles and fails as it is told.
package awstest

import (
	"bufio"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"

	"sealblk/keymgr/kmstest"
)

// Region is where tests have their keys.
const Region = "eu-west-1"

var listening = regexp.MustCompile(`Running on (http://127\.0\.0\.1:[0-9]+)`)

// startMoto returns the URL of a moto that ends with the test.
func startMoto(t testing.TB) string {
	t.Helper()
	cmd := exec.Command(kmstest.Installed(t, "moto/bin/moto_server", "moto"), "-H", "127.0.0.1", "-p", "0")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYTHONUNBUFFERED=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url, ended := make(chan string, 1), make(chan struct{})
	go func() { // reads to the end, or moto would block
		defer close(ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			if m := listening.FindStringSubmatch(s.Text()); m != nil {
				select {
				case url <- m[1]:
				default: // it said so before
				}
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		<-ended
		cmd.Wait() //nolint:errcheck // it was killed
	})
	select {
	case u := <-url:
		return u
	case <-ended:
		t.Fatal("moto ended before it listened")
	}
	return ""
}
