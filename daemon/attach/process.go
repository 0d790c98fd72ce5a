package attach

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// beganField is the place of a process's start among what /proc/PID/stat says after its
// name (proc(5): field 22), which may hold anything.
const beganField = 19

// began tells when a process began, in clock ticks since the host did. With its pid that
// is one process, whatever has that pid later. It is 0 if there is none.
func began(pid int) uint64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) <= beganField {
		return 0
	}
	ticks, _ := strconv.ParseUint(fields[beganField], 10, 64)
	return ticks
}
