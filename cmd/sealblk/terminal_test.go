package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// typed FILE COMMAND...: the command runs at a terminal, where a user types the next line
// of FILE whenever it asks for something. What the terminal shows is left in the file tty.
func typed(ts *testscript.TestScript, neg bool, args []string) {
	lines := strings.SplitAfter(ts.ReadFile(args[0]), "\n")
	master, slave, err := terminal()
	ts.Check(err)
	defer master.Close()
	c := exec.Command(filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], args[1]), args[2:]...)
	c.Dir, c.Stdin, c.Stdout, c.Stderr = ts.MkAbs("."), slave, slave, slave
	for _, name := range []string{"PATH", "SEALBLK_STATE_DIR", "TMPDIR"} {
		c.Env = append(c.Env, name+"="+ts.Getenv(name))
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = c.Start()
	slave.Close()
	ts.Check(err)
	shown := converse(master, lines)
	err = c.Wait()
	ts.Check(os.WriteFile(ts.MkAbs("tty"), shown, 0o600))
	ts.Logf("[tty]\n%s", shown)
	if (err != nil) != neg {
		ts.Fatalf("at a terminal: %v", err)
	}
}

// converse answers each question with a line, and returns what was shown.
func converse(tty *os.File, lines []string) []byte {
	var shown []byte
	for b := make([]byte, 1024); ; {
		n, err := tty.Read(b) // EIO when the last user of the terminal has gone
		shown = append(shown, b[:max(n, 0)]...)
		if err != nil {
			return shown
		}
		if bytes.HasSuffix(shown, []byte(": ")) && len(lines) > 0 {
			if _, err := tty.WriteString(lines[0]); err != nil {
				return shown
			}
			lines = lines[1:]
		}
	}
}

// terminal opens a pseudo-terminal.
func terminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	if err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err == nil {
		var n int
		if n, err = unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN); err == nil {
			slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
		}
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}
