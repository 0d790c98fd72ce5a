package bench

import (
	"errors"
	"testing"
)

// TestMemoryIsNotUsedUp asks only whether a target could be started: a device that was
// really filled would take the host's last page.
func TestMemoryIsNotUsedUp(t *testing.T) {
	const all, some = 1 << 50, 1 << 20
	for _, target := range Targets() {
		inMemory := target.backend == "memory:" || target.where == inSharedMemory
		if err := target.Missing(&Host{Size: all, Directory: "."}); inMemory && !errors.Is(err, ErrWorkload) {
			t.Errorf("%s with 1 PiB: %v", target.Name, err)
		}
		if err := target.Missing(&Host{Size: some, Directory: "."}); errors.Is(err, ErrWorkload) {
			t.Errorf("%s with 1 MiB: %v", target.Name, err)
		}
	}
}
