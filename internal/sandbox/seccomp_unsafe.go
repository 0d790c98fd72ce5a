package sandbox

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// filterCalls comes last: it forbids what the layers before it are made with.
func filterCalls() Layer {
	program, err := assemble()
	if err == nil {
		err = load(program)
	}
	if err != nil {
		return off(LayerSeccomp, err)
	}
	return on(LayerSeccomp, fmt.Sprintf("%d system calls are allowed", len(allowed)+len(conditional())-len(ioctls)+1))
}

// assemble makes the filter of this architecture.
func assemble() ([]bpf.RawInstruction, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	known := func(name string) bool { _, ok := info.SyscallNames[name]; return ok }
	// clone3 hides its flags from a filter: who uses it (a C library) goes back to
	// clone when it is told that there is no such call.
	missing := seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
	policy := seccomp.Policy{
		DefaultAction: seccomp.ActionErrno, // EPERM
		Syscalls: []seccomp.SyscallGroup{
			{Names: slices.DeleteFunc(slices.Clone(allowed), func(n string) bool { return !known(n) }),
				NamesWithCondtions: conditional(), Action: seccomp.ActionAllow},
			{Names: []string{"clone3"}, Action: missing},
		},
	}
	instructions, err := policy.Assemble()
	if err != nil {
		return nil, fmt.Errorf("assemble filter: %w", err)
	}
	return bpf.Assemble(instructions)
}

// load installs the filter on all threads at once (SECCOMP_FILTER_FLAG_TSYNC).
func load(program []bpf.RawInstruction) error {
	filters := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filters[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := &unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]}
	failed, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(prog)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return fmt.Errorf("load filter: %w", errno)
	}
	if failed != 0 {
		return fmt.Errorf("load filter: thread %d: %w", failed, errPartial)
	}
	return nil
}
