package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what a result depends on beside the programs.
type Machine struct {
	CPU     string `json:"cpu"`
	CPUs    int    `json:"cpus"`
	Memory  int64  `json:"memory_bytes"`
	Kernel  string `json:"kernel"`
	Go      string `json:"go"`
	Version string `json:"sealblk"`
	// QEMU is the version of qemu-storage-daemon; empty if it is not installed.
	QEMU string `json:"qemu"`
}

// ThisMachine describes the host, for a program of that version.
func ThisMachine(version string) Machine {
	m := Machine{CPU: CPUModel(), Kernel: "unknown", Go: runtime.Version(), Version: version, QEMU: qemuVersion()}
	if cpus, err := allowed(); err == nil {
		m.CPUs = len(cpus)
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = unix.ByteSliceToString(uts.Sysname[:]) + " " + unix.ByteSliceToString(uts.Release[:])
	}
	return m
}

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

func qemuVersion() string {
	out, err := exec.Command("qemu-storage-daemon", "--version").Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// String is the machine in a line.
func (m Machine) String() string {
	s := fmt.Sprintf("%s, %d CPUs, %.0f GiB, %s; sealblk %s, %s", m.CPU, m.CPUs, float64(m.Memory)/(1<<30), m.Kernel, m.Version, m.Go)
	if m.QEMU != "" {
		s += ", " + m.QEMU
	}
	return s
}
