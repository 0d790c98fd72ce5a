package bench

import (
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Placement is which CPUs a run uses. Empty lists are any.
type Placement struct {
	// Server is where servers are started.
	Server []int
	// Frontend has a CPU for each queue.
	Frontend []int
}

// Place gives each queue of the front-end a CPU of its own and the server the rest. It
// is the zero Placement where there are too few.
func Place(queues int) (Placement, error) {
	cpus, err := allowed()
	if err != nil || len(cpus) < queues+1 {
		return Placement{}, err
	}
	split := len(cpus) - queues
	return Placement{Server: cpus[:split], Frontend: cpus[split:]}, nil
}

// allowed are the CPUs that the calling thread may use.
func allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("read CPU affinity: %w", err)
	}
	var cpus []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus, nil
}

// onCPUs runs f on a thread that is bound to CPUs, as are the processes that f starts.
// No CPUs: on any.
func onCPUs(cpus []int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if len(cpus) == 0 {
		return f()
	}
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	for _, c := range cpus {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("bind to CPUs %v: %w", cpus, err)
	}
	defer unix.SchedSetaffinity(0, &before) //nolint:errcheck // it is what the kernel gave
	return f()
}

// crowded tells whether a server with a thread for each queue and a front-end that
// polls have to share CPUs.
func crowded(p Placement, queues int) bool {
	cpus, err := allowed()
	return err != nil || len(cpus) < 2*queues || len(p.Server) > 0 && len(p.Server) < queues
}

// pick is the CPU of queue i.
func (p Placement) pick(i int) []int {
	if i >= len(p.Frontend) {
		return nil
	}
	return slices.Clip(p.Frontend[i : i+1])
}
