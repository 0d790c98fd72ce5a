package explain

import "errors"

var (
	// ErrUnsupported: the kernel or the processor lacks what is needed.
	ErrUnsupported = errors.New("no tracing on this host: it takes Linux 5.18 or later with BTF (CONFIG_DEBUG_INFO_BTF), on amd64")
	// ErrForbidden: the kernel could, and this user may not.
	ErrForbidden = errors.New("not permitted to trace: run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE")
	// ErrProcesses: none, or more than the collector can watch.
	ErrProcesses = errors.New("cannot watch this number of processes")
)
