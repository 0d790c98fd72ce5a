//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sealblk/vhost/frontend"
)

// What an export may cost while its VM does nothing.
const (
	idleMemory  = 25 << 20 // bytes that are its own, its broker's included
	idleShare   = 0.01     // of one processor
	idleWatched = 5 * time.Second
)

// How soon after its work an export rests: a garbage collection that began with the work
// may go on for a while on a crowded host.
const (
	restWithin = 5 * time.Second
	restLook   = 200 * time.Millisecond
)

// TestIdleExports: exports whose VMs have done some work and rest now.
func TestIdleExports(t *testing.T) {
	for _, n := range []int{1, 8, 64} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { idle(t, n) })
	}
}

func idle(t *testing.T, n int) {
	h := newHost(t)
	var pids []int
	for i := range n {
		name := fmt.Sprint("d", i)
		h.run("disk", "create", name, "--size", "64M", "--encrypted")
		e := h.export(name)
		exercise(t, e.socket)
		pids = append(pids, e.cmd.Process.Pid, brokerOf(t, e.cmd.Process.Pid))
	}
	awaitRest(t, pids, n)
	before := processorTime(t, pids)
	time.Sleep(idleWatched) // what is measured
	used, each := processorTime(t, pids).since(before)
	share := used.Seconds() / idleWatched.Seconds() / float64(n)
	var largest, sum int64
	for i := 0; i < len(pids); i += 2 {
		m := privateMemory(t, pids[i]) + privateMemory(t, pids[i+1])
		largest, sum = max(largest, m), sum+m
	}
	t.Logf("%d exports: %.4f of a processor and %.1f MiB each, the largest %.1f MiB", n, share, float64(sum)/float64(n)/(1<<20), float64(largest)/(1<<20))
	if share > idleShare {
		t.Errorf("an idle export takes %.4f of a processor, threads that took most:\n%s", share, strings.Join(each, "\n"))
		before = processorTime(t, pids)
		time.Sleep(idleWatched) // whether it goes on
		used, each = processorTime(t, pids).since(before)
		t.Logf("in the next %v: %v\n%s", idleWatched, used, strings.Join(each, "\n"))
	}
	if largest > idleMemory {
		t.Errorf("an idle export takes %d bytes", largest)
	}
}

// awaitRest waits until exports take no more than they may when idle.
func awaitRest(t *testing.T, pids []int, n int) {
	t.Helper()
	for end := time.Now().Add(restWithin); ; {
		before := processorTime(t, pids)
		time.Sleep(restLook)
		used, each := processorTime(t, pids).since(before)
		if used.Seconds() <= idleShare*restLook.Seconds()*float64(n) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%v after their work exports still take %v in %v:\n%s", restWithin, used, restLook, strings.Join(each, "\n"))
		}
	}
}

// exercise opens a disk as a VM with two queues does, and keeps it open.
func exercise(t *testing.T, socket string) {
	t.Helper()
	d, err := frontend.Open(context.Background(), socket, frontend.Options{Queues: 2, Polling: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	data := make([]byte, 256<<10)
	for i := range data {
		data[i] = byte(i)
	}
	for _, q := range d.Queues() {
		for at := int64(0); at < 8<<20; at += int64(len(data)) {
			if _, err := q.WriteAt(data, at); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// threadTimes is what threads have used of the processors, in user and kernel, how
// often they were put on one, and how often they touched a page that was not there.
type threadTimes map[string]threadTime

type threadTime struct {
	name               string
	ns, slices, faults int64
}

func processorTime(t *testing.T, pids []int) threadTimes {
	t.Helper()
	times := threadTimes{}
	for _, pid := range pids {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			text, err := os.ReadFile(task + "/schedstat") // ns on a processor, ns waiting for it, slices
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue // the thread has ended
			}
			if err != nil {
				t.Fatal(err)
			}
			var thread threadTime
			if _, err := fmt.Sscan(string(text), &thread.ns, new(int64), &thread.slices); err != nil {
				t.Fatal(err)
			}
			thread.name, thread.faults = nameAndFaults(task)
			times[task] = thread
		}
	}
	return times
}

// nameAndFaults reads a thread's name and its minor page faults, nothing if it has ended.
func nameAndFaults(task string) (name string, faults int64) {
	text, _ := os.ReadFile(task + "/stat") // "ID (NAME) STATE", six numbers, minor faults: proc_pid_stat(5)
	_, rest, _ := strings.Cut(string(text), "(")
	end := strings.LastIndex(rest, ")")
	if end < 0 {
		return "", 0
	}
	if fields := strings.Fields(rest[end+1:]); len(fields) > 7 {
		faults, _ = strconv.ParseInt(fields[7], 10, 64)
	}
	return rest[:end], faults
}

// since tells what was used since an earlier look, all in all and by thread.
func (times threadTimes) since(before threadTimes) (sum time.Duration, each []string) {
	for task, now := range times {
		then := before[task]
		used := time.Duration(now.ns - then.ns)
		sum += used
		if used > time.Millisecond {
			each = append(each, fmt.Sprintf("%s (%s): %v in %d slices, %d page faults", task, now.name, used, now.slices-then.slices, now.faults-then.faults))
		}
	}
	return sum, each
}

// privateMemory is what no other process has, in bytes.
func privateMemory(t *testing.T, pid int) (sum int64) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); strings.HasPrefix(fields[0], "Private_") {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += kib << 10
		}
	}
	if sum == 0 {
		t.Fatalf("process %d has no memory", pid)
	}
	return sum
}
