package secret

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// HardenProcess forbids core dumps and ptrace by processes of the same user for the
// rest of the process's life. It comes first in any process that will hold a key.
// Afterwards files below /proc/self belong to root: an unprivileged process can no
// longer open descriptors through /proc/self/fd.
func HardenProcess() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	// A core_pattern that pipes to a program ignores the limit; this does not.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make process not dumpable: %w", err)
	}
	return nil
}
