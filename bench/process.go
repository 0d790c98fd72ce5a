package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Usage is what a process and its descendants have used since they were started.
type Usage struct {
	// Delay is in nanoseconds: runnable, but not on a CPU.
	Delay int64
	// Voluntary and Involuntary context switches.
	Voluntary, Involuntary int64
	// MinorFaults and MajorFaults are page faults.
	MinorFaults, MajorFaults int64
}

func (u *Usage) add(o Usage) {
	u.Delay += o.Delay
	u.Voluntary += o.Voluntary
	u.Involuntary += o.Involuntary
	u.MinorFaults += o.MinorFaults
	u.MajorFaults += o.MajorFaults
}

// since is what was used after before.
func (u Usage) since(before Usage) Usage {
	return Usage{
		u.Delay - before.Delay, u.Voluntary - before.Voluntary, u.Involuntary - before.Involuntary,
		u.MinorFaults - before.MinorFaults, u.MajorFaults - before.MajorFaults,
	}
}

// processTree is a process and its descendants; nothing if the process is not known.
func processTree(pid int) ([]int, error) {
	if pid <= 0 {
		return nil, nil
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, path := range stats {
		fields, err := statFields(path)
		if err != nil {
			continue // it has just ended
		}
		parent, err1 := strconv.Atoi(fields[statParent])
		child, err2 := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err1 == nil && err2 == nil {
			children[parent] = append(children[parent], child)
		}
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// Fields of proc_pid_stat(5), as statFields counts them.
const (
	statParent = 4 - 3
	statMinor  = 10 - 3
	statMajor  = 12 - 3
)

// statFields are the fields behind the program's name, which may hold anything.
func statFields(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) <= statMajor {
		return nil, fmt.Errorf("%s has %d fields", path, len(fields))
	}
	return fields, nil
}

// usage of processes. One that has ended counts nothing.
func usage(pids []int) (Usage, error) {
	var total Usage
	for _, pid := range pids {
		u, err := usageOf(pid)
		if err != nil && !gone(err) {
			return total, fmt.Errorf("read use of process %d: %w", pid, err)
		}
		total.add(u)
	}
	return total, nil
}

// gone tells whether an error means that a process or thread has ended.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

func usageOf(pid int) (u Usage, err error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	if err := u.readFaults(dir + "/stat"); err != nil {
		return u, err
	}
	tasks, err := os.ReadDir(dir + "/task")
	if err != nil {
		return u, err
	}
	for _, t := range tasks {
		task := filepath.Join(dir, "task", t.Name())
		err := errors.Join(u.readDelay(task+"/schedstat"), u.readSwitches(task+"/status"))
		if err != nil && !gone(err) {
			return u, err
		}
	}
	return u, nil
}

// cpuTimes is the CPU time of processes, in nanoseconds: that of all their threads, also
// those that have ended (what clock_getcpuclockid(3) gives access to). The kernel's
// figure is as old as the last tick. A process that has ended counts nothing.
func cpuTimes(pids []int) (total int64) {
	const scheduled = 2 // CPUCLOCK_SCHED
	for _, pid := range pids {
		var t unix.Timespec
		if unix.ClockGettime(int32(^pid<<3|scheduled), &t) == nil {
			total += t.Nano()
		}
	}
	return total
}

func (u *Usage) readFaults(path string) error {
	fields, err := statFields(path)
	if err != nil {
		return err
	}
	return errors.Join(addNumber(&u.MinorFaults, fields[statMinor]), addNumber(&u.MajorFaults, fields[statMajor]))
}

// readDelay reads the time spent runnable but not running
// (Documentation/scheduler/sched-stats.rst).
func (u *Usage) readDelay(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return fmt.Errorf("%s has %d fields", path, len(fields))
	}
	return addNumber(&u.Delay, fields[1])
}

func (u *Usage) readSwitches(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "voluntary_ctxt_switches":
			err = errors.Join(err, addNumber(&u.Voluntary, value))
		case "nonvoluntary_ctxt_switches":
			err = errors.Join(err, addNumber(&u.Involuntary, value))
		}
	}
	return err
}

func addNumber(to *int64, s string) error {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	*to += n
	return err
}
