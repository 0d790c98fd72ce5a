package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// stopDeadline bounds the wait for an export to drain.
const stopDeadline = 30 * time.Second

// running finds the export of a disk, or starts one.
func running(ctx context.Context, c *disk.Catalogue, o Options) (s control.Status, started bool, err error) {
	client := control.Dial(c.ControlPath(o.Disk))
	s, err = client.Status(ctx)
	if err == nil || !errors.Is(err, control.ErrNotRunning) {
		return s, false, err
	}
	if err := start(ctx, c, o); err != nil {
		return s, false, fmt.Errorf("start export of disk %s: %w", o.Disk, err)
	}
	s, err = client.Status(ctx)
	return s, true, err
}

// start runs an export in the background, in a session of its own, and waits until it
// is ready. Its log goes to run/NAME.log.
func start(ctx context.Context, c *disk.Catalogue, o Options) error {
	log, err := os.OpenFile(filepath.Join(c.Dir(), "run", o.Disk+".log"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	ready, env, err := notifySocket()
	if err != nil {
		return err
	}
	defer ready.Close()
	args := append(o.Program[1:len(o.Program):len(o.Program)], "export", o.Disk)
	cmd := exec.Command(o.Program[0], args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		cmd.Wait() //nolint:errcheck // its log says why
		ready.Close()
	}()
	if err := awaitReady(ctx, ready); err == nil {
		return nil
	}
	cmd.Process.Signal(unix.SIGTERM) //nolint:errcheck // it may have gone
	<-exited
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return lastLine(log)
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

// stop asks an export to drain and waits until it has gone. One that does not run is
// fine.
func stop(c *disk.Catalogue, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopDeadline)
	defer cancel()
	client := control.Dial(c.ControlPath(name))
	s, err := client.Status(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(s.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch export: %w", err)
	}
	defer unix.Close(pidfd)
	if err := client.Stop(ctx); err != nil && !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	return waitExit(pidfd, s.PID)
}

func waitExit(pidfd, pid int) error {
	deadline := time.Now().Add(stopDeadline)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("export with pid %d has not stopped within %v: it may wait for its storage", pid, stopDeadline)
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
