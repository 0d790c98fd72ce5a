package blockdevtest

import (
	"fmt"
	"os"

	"go.uber.org/goleak"
)

// leaks remembers what the process held before a case.
type leaks struct {
	fds        map[string]string
	goroutines goleak.Option
}

func watchLeaks() leaks {
	// The runtime's poller opens its descriptors at the first use of a pipe.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	return leaks{fds: openFDs(), goroutines: goleak.IgnoreCurrent()}
}

// check tells what is held now and was not before.
func (l leaks) check() error {
	for fd, target := range openFDs() {
		if l.fds[fd] != target {
			return fmt.Errorf("descriptor %s (%s) is still open", fd, target)
		}
	}
	return goleak.Find(l.goroutines)
}

func openFDs() map[string]string {
	const dir = "/proc/self/fd/"
	fds := make(map[string]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fds
	}
	for _, e := range entries {
		// The descriptor of the directory itself is gone by now.
		if target, err := os.Readlink(dir + e.Name()); err == nil {
			fds[e.Name()] = target
		}
	}
	return fds
}
