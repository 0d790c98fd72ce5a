package bench

import (
	"os"
	"strings"
)

// CPUModel is the name of the first CPU.
func CPUModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // there is always one
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
