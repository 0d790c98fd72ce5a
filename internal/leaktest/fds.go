package leaktest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

const fdDir = "/proc/self/fd"

// wakePoller makes the runtime open its epoll and eventfd descriptors now, so that
// they are among those that were open before and every later eventfd is ours.
func wakePoller() {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	r.Close()
	w.Close()
}

// openFDs maps each open descriptor to what it refers to.
func openFDs() map[int]string {
	fds := make(map[int]string)
	entries, err := os.ReadDir(fdDir)
	if err != nil {
		return fds
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// The descriptor of the listing itself is closed by now and falls out here.
		if target, err := os.Readlink(filepath.Join(fdDir, e.Name())); err == nil {
			fds[n] = target
		}
	}
	return fds
}

// leftFDs names the descriptors that were not open before, once their number is
// zero or the patience is over.
func leftFDs(before map[int]string, patience time.Duration) []string {
	for deadline := time.Now().Add(patience); ; time.Sleep(patience / 100) {
		left := newFDs(before, openFDs())
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

func newFDs(before, now map[int]string) []string {
	var left []string
	for n, target := range now {
		if before[n] != target {
			left = append(left, fmt.Sprintf("%d -> %s", n, target))
		}
	}
	slices.Sort(left)
	return left
}

// lookTool also looks where programs for root live, which a user's PATH may not name.
func lookTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err2 := exec.LookPath(filepath.Join(dir, name)); err2 == nil {
			return path, nil
		}
	}
	return "", err
}
