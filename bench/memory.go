package bench

import (
	"bufio"
	"errors"
	"fmt"
	"os"
)

// needMemory refuses a device in memory that is larger than what is free: each of its
// pages is written before a run, and for the last ones the kernel kills processes.
func needMemory(size int64) error {
	free, err := availableMemory()
	if err != nil || size <= free { // a host that does not tell is believed to have it
		return nil
	}
	return fmt.Errorf("its device of %d MiB is in memory, and %d MiB of that are free: use a smaller --size: %w", size>>20, free>>20, ErrWorkload)
}

// availableMemory is what programs could take without swapping (proc_meminfo(5)).
func availableMemory() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var kib int64
		if n, _ := fmt.Sscanf(lines.Text(), "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, errors.Join(errors.New("no MemAvailable"), lines.Err())
}
