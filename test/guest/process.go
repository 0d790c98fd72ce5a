package guest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// process is a running QEMU.
type process struct {
	pid    int
	exited chan struct{}
	err    error // why it ended; set when exited is closed
	proc   *os.Process
}

// start starts a program that dies with this process. The kernel takes the death of
// the thread that started it for that, so one goroutine keeps its thread until the
// program's end.
func start(path string, args []string, out io.Writer) (*process, error) {
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &process{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid, p.proc = cmd.Process.Pid, cmd.Process
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// gone is why an exited process is an error for those who need it.
func (p *process) gone() error {
	if p.err == nil {
		return ErrGone
	}
	return fmt.Errorf("%w: QEMU: %w", ErrGone, p.err)
}

// kill ends the process and waits for its end.
func (p *process) kill() {
	_ = p.proc.Kill()
	<-p.exited
}

// quote doubles the commas in a value of QEMU's comma-separated options.
func quote(value string) string { return strings.ReplaceAll(value, ",", ",,") }
