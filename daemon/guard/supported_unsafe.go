package guard

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// lsmIDBPF is LSM_ID_BPF of linux/lsm.h.
const lsmIDBPF = 110

// Supported is nil if the guard can be loaded here, by this process.
func Supported() error { return supported() }

// supported is asked of the kernel because a program can be attached where its hook is
// never called: where bpf is not in the list of LSMs.
func supported() error {
	if !active() {
		return ErrUnsupported
	}
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	return probe()
}

// probe loads a program that allows everything, and attaches it to nothing: a policy
// of the machine's owner may forbid LSM programs even to root.
func probe() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "ptrace_access_check", License: "Dual MIT/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if errors.Is(err, unix.EPERM) {
		return ErrForbidden
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return p.Close()
}

// active tells whether the BPF LSM is on: by lsm_list_modules(2) (Linux 6.8), else by
// securityfs.
func active() bool {
	var ids [64]uint64
	size := uint32(unsafe.Sizeof(ids))
	n, _, errno := unix.Syscall(unix.SYS_LSM_LIST_MODULES, uintptr(unsafe.Pointer(&ids)), uintptr(unsafe.Pointer(&size)), 0)
	if errno == 0 {
		return slices.Contains(ids[:min(int(n), len(ids))], lsmIDBPF)
	}
	names, err := os.ReadFile("/sys/kernel/security/lsm")
	return err == nil && slices.Contains(strings.Split(strings.TrimSpace(string(names)), ","), "bpf")
}
