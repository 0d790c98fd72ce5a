package guard

import "errors"

var (
	// ErrUnsupported: the kernel cannot run the guard.
	ErrUnsupported = errors.New("the kernel runs no BPF LSM programs (CONFIG_BPF_LSM, and bpf in the list of LSMs: boot with lsm=...,bpf)")
	// ErrForbidden: the kernel could, and is told not to.
	ErrForbidden = errors.New("the kernel has BPF LSM and refuses to load its programs even to root: a policy of this machine forbids it")
	// ErrNotLoaded: there is no guard to register with.
	ErrNotLoaded = errors.New("the key guard is not loaded")
	// ErrHeld: the guard is unloaded and the kernel has not let its program go.
	ErrHeld = errors.New("the key guard has no pin any more and is still in the kernel: another process holds it (bpftool prog show)")
	// ErrNotRoot: loading and registering take root.
	ErrNotRoot = errors.New("the key guard needs root")
	// ErrNoBPFFS: there is no BPF file system to pin the guard in.
	ErrNoBPFFS = errors.New("no BPF file system is mounted there (mount -t bpf bpf /sys/fs/bpf)")
)
