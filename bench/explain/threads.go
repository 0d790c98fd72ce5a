package explain

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// watchThreads tells the collector of the threads that there are, and samples them.
// Those that are made later it finds itself; they are sampled by inheritance.
func (c *Collector) watchThreads() error {
	for _, pid := range c.pids {
		tids, err := threadsOf(pid)
		if err != nil {
			return fmt.Errorf("list threads of process %d: %w", pid, err)
		}
		for _, tid := range tids {
			if err := c.watchThread(pid, tid); err != nil && !gone(err) {
				return fmt.Errorf("watch thread %d of process %d: %w", tid, pid, err)
			}
		}
	}
	return nil
}

func threadsOf(pid int) (tids []int, err error) {
	entries, err := os.ReadDir(taskDirectory(pid))
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids, err
}

func taskDirectory(pid int) string { return fmt.Sprintf("/proc/%d/task", pid) }

// gone tells whether an error means that a thread has ended.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

func (c *Collector) watchThread(pid, tid int) error {
	if !isKernelThread(pid, tid) { // those run no code of the process
		event, err := openSampler(tid, true)
		if err != nil {
			return err
		}
		c.attached = append(c.attached, event)
		if err := event.attach(c.objects.Sample); err != nil {
			return err
		}
	}
	seed, err := threadNow(pid, tid)
	if err != nil {
		return err
	}
	// If the collector has seen it meanwhile, it knows better.
	err = c.objects.Threads.Update(uint32(tid), seed, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return err
	}
	return nil
}

// threadNow is what a thread does, for the time until the collector sees it itself.
func threadNow(pid, tid int) (*rawThread, error) {
	now, err := monotonic()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(taskDirectory(pid), strconv.Itoa(tid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return nil, err
	}
	t := &rawThread{Since: now, Nr: inUser, Running: 1}
	if isKernelThread(pid, tid) {
		t.Nr = inWorker
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) == 0 || fields[0] == "R" {
		return t, nil
	}
	t.Running, t.Slept = 0, 1
	if t.Nr != inWorker {
		t.Nr = callNow(filepath.Join(dir, "syscall"))
	}
	return t, nil
}

// callNow is the system call that a thread sleeps in. Reading it may be refused, as it
// tells registers too.
func callNow(path string) int32 {
	text, err := os.ReadFile(path)
	if err != nil {
		return inUnknown
	}
	number, _, _ := strings.Cut(string(text), " ")
	nr, err := strconv.ParseInt(strings.TrimSpace(number), 10, 32)
	if err != nil || nr < 0 {
		return inUnknown
	}
	return int32(nr)
}

// isKernelThread tells whether a thread is one of the kernel's that works for a process.
func isKernelThread(pid, tid int) bool {
	name := threadName(pid, tid)
	return strings.HasPrefix(name, "iou-wrk-") || strings.HasPrefix(name, "iou-sqp-")
}

func threadName(pid, tid int) string {
	name, err := os.ReadFile(filepath.Join(taskDirectory(pid), strconv.Itoa(tid), "comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

func monotonic() (uint64, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0, fmt.Errorf("read clock: %w", err)
	}
	return uint64(t.Nano()), nil
}
