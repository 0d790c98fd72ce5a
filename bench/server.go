package bench

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
	"sync"
	"syscall"
	"time"
)

// Server is a target's server that waits for a front-end.
type Server struct {
	Endpoint
	// External: it is not ours to stop.
	External bool

	dirs    []string // to remove
	data    string   // where its file is
	cmd     *exec.Cmd
	log     tail
	exited  chan struct{}
	waitErr error
}

// command is a program that is run to its end, for its effect. The terminal's
// interrupts do not reach it either.
func (s *Server) command(ctx context.Context, name string, args ...string) error {
	var out tail
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err := cmd.Run()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("run %s: %w%s", filepath.Base(name), err, out.quote())
	}
	return nil
}

// launch starts the server itself, bound to the host's CPUs. It does not outlive this
// process, and the terminal's interrupts do not reach it: it is stopped in good order.
func (s *Server) launch(h *Host, name string, args ...string) error {
	s.cmd = exec.Command(name, args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := onCPUs(h.CPUs, s.cmd.Start); err != nil {
		s.cmd = nil
		return err
	}
	s.PID = s.cmd.Process.Pid
	s.exited = make(chan struct{})
	go func() { s.waitErr = s.cmd.Wait(); close(s.exited) }()
	return nil
}

// startPatience is how long a server may take until it listens.
const startPatience = 20 * time.Second

// awaitSocket waits until the server listens.
func (s *Server) awaitSocket(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if listens(s.Socket) {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return s.ended()
		case <-ctx.Done():
			return fmt.Errorf("wait for the server's socket: %w", ctx.Err())
		}
	}
}

// listens tells whether a unix socket takes connections: it appears in the file system
// some time before. A connection to find out would be a session of the server's.
func listens(path string) bool {
	if _, err := os.Stat(path); err != nil {
		return false
	}
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return true
	}
	const acceptCon = 1 << 16 // __SO_ACCEPTCON
	for line := range strings.Lines(string(table)) {
		// Num RefCount Protocol Flags Type St Inode Path
		if f := strings.Fields(line); len(f) >= 8 && strings.HasSuffix(line, " "+path+"\n") {
			flags, err := strconv.ParseUint(f[3], 16, 64)
			return err == nil && flags&acceptCon != 0
		}
	}
	return false
}

// stopPatience is how long a server may take to end in good order.
const stopPatience = 20 * time.Second

// Close stops the server and removes what belongs to it.
func (s *Server) Close() error {
	var errs []error
	if s.cmd != nil {
		errs = append(errs, s.stop())
		s.cmd = nil
	}
	for _, dir := range s.dirs {
		errs = append(errs, os.RemoveAll(dir))
	}
	s.dirs = nil
	return errors.Join(errs...)
}

func (s *Server) stop() error {
	select {
	case <-s.exited:
		return s.ended()
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
	select {
	case <-s.exited:
		return nil
	case <-time.After(stopPatience):
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	return fmt.Errorf("%s: %w: it did not end when it was told to", s.Name, ErrServer)
}

// ended is the error of a server that ended by itself.
func (s *Server) ended() error {
	err := s.waitErr
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("%s: %w: ended by itself: %w%s", s.Name, ErrServer, err, s.log.quote())
}

// tail keeps the last of what a program prints.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 2048

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-tailSize):]
	return len(p), nil
}

// quote is the last line, to stand behind an error.
func (t *tail) quote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.b), []byte("\n"))
	if last := bytes.TrimSpace(lines[len(lines)-1]); len(last) > 0 {
		return ": " + string(last)
	}
	return ""
}
