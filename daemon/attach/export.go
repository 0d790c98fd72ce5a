package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/daemon/control"
	"sealblk/disk"
)

const (
	// stopDeadline bounds the wait for an export to drain.
	stopDeadline = 30 * time.Second
	// killDeadline is how long an export that serves nobody yet may take to end.
	killDeadline = 5 * time.Second
	// goneDeadline is how long an export may take to see that its VM has gone.
	goneDeadline = 2 * time.Second
)

// running finds the export of a disk, or starts one, whose pid it tells. After an error
// there is none that was not there before.
func running(ctx context.Context, c *disk.Catalogue, o Options, tell func(pid int) error) (s control.Status, started bool, err error) {
	client := control.Dial(c.ControlPath(o.Disk))
	s, err = client.Status(ctx)
	if err == nil || !errors.Is(err, control.ErrNotRunning) {
		return s, false, err
	}
	child, err := start(ctx, c, o, tell)
	if err != nil {
		return s, false, fmt.Errorf("start its export: %w", err)
	}
	if s, err = client.Status(ctx); err != nil {
		child.end()
		return s, false, fmt.Errorf("start its export: %w", err)
	}
	return s, true, nil
}

// child is an export that was started here.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// start runs an export in the background and waits until it is ready. It is in a
// session of its own, so that no key on a terminal reaches it, and keeps no folder of
// its parent busy. Its log goes to run/NAME.log.
func start(ctx context.Context, c *disk.Catalogue, o Options, tell func(pid int) error) (*child, error) {
	log, err := os.OpenFile(filepath.Join(c.Dir(), "run", o.Disk+".log"), os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	ready, env, err := notifySocket()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	args := append(o.Program[1:len(o.Program):len(o.Program)], "export", o.Disk)
	if o.UseEscrow {
		args = append(args, "--use-escrow")
	}
	if o.KeyDeadline > 0 {
		args = append(args, "--key-deadline", o.KeyDeadline.String())
	}
	cmd := exec.Command(o.Program[0], args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.Env = append(os.Environ(), env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	keepDescriptors()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &child{cmd, make(chan struct{})}
	go func() {
		defer close(p.exited)
		cmd.Wait() //nolint:errcheck // its log says why
		ready.Close()
	}()
	if err := tell(cmd.Process.Pid); err != nil {
		p.end()
		return nil, err
	}
	if err := awaitReady(ctx, ready); err == nil {
		return p, nil
	}
	p.end()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, lastLine(log)
}

// keepDescriptors keeps from the export what this process was given by accident: whoever
// waits for the end of such a pipe would wait as long as the VM lives. Kernels before
// 5.11 cannot do it.
func keepDescriptors() { _ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) }

// end ends an export that serves nobody.
func (p *child) end() {
	p.cmd.Process.Signal(unix.SIGTERM) //nolint:errcheck // it may have gone
	kill := time.AfterFunc(killDeadline, func() {
		p.cmd.Process.Kill() //nolint:errcheck // it may have gone
	})
	defer kill.Stop()
	<-p.exited
}

// notifySocket is where a service tells that it is ready (sd_notify(3)). Its name is
// abstract, so that no path can be too long for it.
func notifySocket() (*net.UnixConn, string, error) {
	addr := &net.UnixAddr{Net: "unixgram"} // the kernel chooses a free abstract name
	conn, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		return nil, "", fmt.Errorf("listen for readiness: %w", err)
	}
	return conn, "NOTIFY_SOCKET=" + conn.LocalAddr().String(), nil
}

// awaitReady waits for READY=1. It fails when the socket is closed, which the end of
// the process does, and when ctx ends.
func awaitReady(ctx context.Context, conn *net.UnixConn) error {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if bytes.Contains(buf[:n], []byte("READY=1")) {
			return nil
		}
	}
}

// lastLine is what a failed export said last: its error.
func lastLine(log *os.File) error {
	data, err := os.ReadFile(log.Name())
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	last := bytes.TrimPrefix(lines[len(lines)-1], []byte("sealblk: "))
	if len(last) == 0 {
		return errors.New("it ended without a word")
	}
	return errors.New(string(last))
}

// stop asks the export that was attached by to drain and waits until it has gone. One that
// does not run any more is fine, and one that somebody else started since is left alone.
func (a Attachment) stop(c *disk.Catalogue) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopDeadline)
	defer cancel()
	pidfd, err := unix.PidfdOpen(a.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch export: %w", err)
	}
	defer unix.Close(pidfd)
	mine, err := a.ask(ctx, c)
	if errors.Is(err, control.ErrNotRunning) {
		// It does not listen yet, as long as it waits for its key, or not any more.
		if mine = a.Began != 0 && a.Began == began(a.PID); mine {
			err = unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0)
		}
	}
	switch {
	case !mine || errors.Is(err, unix.ESRCH):
		return nil
	case err != nil:
		return fmt.Errorf("stop its export, which has pid %d: %w", a.PID, err)
	}
	return waitExit(pidfd, a.PID)
}

// ask asks the export to stop, if it is the one that answers.
func (a Attachment) ask(ctx context.Context, c *disk.Catalogue) (mine bool, err error) {
	path, ok := c.ControlPathOf(a.Disk, a.PID)
	if !ok {
		return false, control.ErrNotRunning
	}
	client := control.Dial(path)
	s, err := client.Status(ctx)
	if err == nil && s.PID != a.PID {
		return false, nil
	}
	if err == nil {
		err = client.Stop(ctx)
	}
	return true, err
}

// stopUnready stops an export that an attach started and that answers nobody yet: that
// attach was killed. It would keep the disk from another for as long as its KMS is away.
func (a Attachment) stopUnready(c *disk.Catalogue) error {
	if _, answers := c.ControlPathOf(a.Disk, a.PID); answers || !a.Started {
		return nil
	}
	return a.stop(c)
}

func waitExit(pidfd, pid int) error {
	deadline := time.Now().Add(stopDeadline)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("its export, which has pid %d, has not stopped within %v: it may wait for its storage", pid, stopDeadline)
		}
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if n == 1 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return err
		}
	}
}
