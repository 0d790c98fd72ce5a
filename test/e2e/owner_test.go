//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/daemon/control"
)

// side is one of the two exports between which a disk moves.
type side struct {
	name    string
	pid     int
	control *control.Client
	backing string // the file with the disk's data
	lock    string // of the disk in its state directory
}

// work is what an export has done so far, by its own account and by the kernel's.
type work struct {
	control.Stats
	Stored string // bytes that the process had stored: /proc/PID/io
}

func (h *host) side(name, disk string, e *export) side {
	h.t.Helper()
	backing, err := filepath.EvalSymlinks(h.show(disk).Path)
	if err != nil {
		h.t.Fatal(err)
	}
	pid := e.cmd.Process.Pid
	own, err := filepath.Glob(filepath.Join(h.dir, "run", fmt.Sprintf("%s~%d-*.ctl", disk, pid)))
	if err != nil || len(own) != 1 {
		h.t.Fatalf("control sockets of the %s: %v, %v", name, own, err)
	}
	return side{name, pid, control.Dial(own[0]), backing, filepath.Join(h.dir, "disks", disk+".lock")}
}

// owns tells whether the process holds the right to write to the disk: the kernel lists
// the locks of each open file.
func (s *side) owns() bool {
	dir := fmt.Sprintf("/proc/%d/fd", s.pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err != nil || to != s.backing {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", s.pid, e.Name()))
		if err == nil && strings.Contains(string(info), "OFDLCK") && strings.Contains(string(info), "WRITE") {
			return true
		}
	}
	return false
}

func (s *side) work(t *testing.T) (w work) {
	t.Helper()
	status, err := s.control.Status(context.Background()) // a test that failed has no context any more
	if err != nil {
		t.Errorf("status of the %s: %v", s.name, err)
	}
	w.Stats = status.Stats
	io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.pid))
	if err != nil {
		t.Errorf("I/O of the %s: %v", s.name, err)
	}
	for line := range strings.Lines(string(io)) {
		if n, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			w.Stored = n
		}
	}
	return w
}

// ownership watches a disk on its way from one export to the other.
type ownership struct {
	t        *testing.T
	from, to side
	locks    []*os.File // each of which a stranger would need, all of it

	idle  work  // of the destination, before the move
	last  *work // of the source, after it
	looks int
	free  int // looks at which nobody was the owner
}

// watch begins to look at the owners of a disk; the source must be the one now. Stop
// ends that; the destination must be it then.
func watch(t *testing.T, from, to side) (stop func()) {
	t.Helper()
	o := &ownership{t: t, from: from, to: to, idle: to.work(t)}
	if !from.owns() || to.owns() {
		t.Fatal("before the migration the source is not the owner")
	}
	if from.work(t).Writes == 0 {
		t.Fatal("the source has not worked: there is nothing to see")
	}
	for _, path := range []string{from.backing, from.lock, to.lock} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		o.locks = append(o.locks, f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-done
	})
	go func() {
		defer close(done)
		for pace := time.NewTicker(time.Millisecond); ctx.Err() == nil && !t.Failed(); <-pace.C {
			o.look()
		}
	}()
	return func() {
		t.Helper()
		cancel()
		<-done
		o.end()
	}
}

// look checks that who is not the owner does not work, and that nobody else could
// become the owner. What must not have happened yet is read before the lock that
// proves it, what must not happen any more after it.
func (o *ownership) look() {
	o.looks++
	early := o.to.work(o.t)
	from := o.from.owns()
	if from && early != o.idle {
		o.t.Errorf("the destination worked while the source owned the disk: %+v, then %+v", o.idle, early)
	}
	to := o.to.owns()
	if to && from && o.from.owns() {
		o.t.Error("the disk has two owners")
	}
	if to {
		o.afterMove()
	}
	if !to && !from {
		o.free++
	}
	for _, f := range o.locks {
		o.closedToStrangers(f)
	}
}

func (o *ownership) afterMove() {
	late := o.from.work(o.t)
	if o.last == nil {
		o.last = &late
	}
	if late != *o.last {
		o.t.Errorf("the source worked while the destination owned the disk: %+v, then %+v", *o.last, late)
	}
}

// closedToStrangers asks the kernel whether somebody who has no part in the migration
// could lock the file.
func (o *ownership) closedToStrangers(f *os.File) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK {
		o.t.Errorf("a stranger could lock %s, %v", f.Name(), err)
	}
}

func (o *ownership) end() {
	for _, f := range o.locks {
		f.Close()
	}
	if o.from.owns() || !o.to.owns() {
		o.t.Error("after the migration the destination is not the owner")
	}
	if now := o.to.work(o.t); !o.t.Failed() && (o.last == nil || now.Writes == o.idle.Writes) {
		o.t.Error("the destination has not worked: nothing was seen")
	}
	o.t.Logf("%d looks at the owners, at %d the disk was on its way", o.looks, o.free)
}
