package sandbox

import (
	"os"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// allowed are the system calls of the data path and of the Go runtime, whatever their
// arguments. Names that an architecture does not have are left out.
var allowed = []string{
	// memory (those that could make code are in conditional)
	"munmap", "madvise", "mremap", "mincore", "brk", "msync", "munlock",
	// for a data key that comes back
	"memfd_secret", "mlock",
	// threads and time
	"futex", "sched_yield", "sched_getaffinity", "getrlimit", "getpid", "gettid", "set_robust_list", "rseq", "sigaltstack",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "restart_syscall", "nanosleep", "clock_nanosleep",
	"clock_gettime", "clock_getres", "gettimeofday", "getrandom", "getrusage", "exit", "exit_group",
	"getuid", "geteuid", "getgid", "getegid", "getppid",
	// open files
	"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2",
	"fsync", "fdatasync", "sync_file_range", "fadvise64", "fallocate", "ftruncate", "fstat", "fstatfs", "lseek", "fcntl", "flock",
	"close", "dup", "dup3",
	// memory that is shared with the front-end, and its notifications
	"memfd_create", "eventfd2", "pipe2",
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll",
	// sockets that are open, and connections to them
	"accept4", "recvmsg", "sendmsg", "recvfrom", "sendto", "shutdown", "getsockopt", "setsockopt",
	"getsockname", "getpeername",
	"io_uring_setup", "io_uring_enter", "io_uring_register",
	// the end of a child that was started before
	"wait4", "waitid",
}

// prSetVMA is PR_SET_VMA, by which the runtime names its memory.
const prSetVMA = 0x53564d41

// ioctls are those of host block devices.
var ioctls = []uint64{unix.BLKDISCARD, unix.BLKZEROOUT, unix.BLKGETSIZE64, unix.BLKSSZGET, unix.BLKPBSZGET, unix.BLKROGET}

// conditional are calls that are allowed with certain arguments only: memory that is
// not executable, threads but no processes, signals to this process, ioctls of block
// devices.
func conditional() []seccomp.NameWithConditions {
	calls := []seccomp.NameWithConditions{
		when("mmap", 2, seccomp.BitsNotSet, unix.PROT_EXEC),
		when("mprotect", 2, seccomp.BitsNotSet, unix.PROT_EXEC),
		when("clone", 0, seccomp.BitsSet, unix.CLONE_THREAD),
		when("tgkill", 0, seccomp.Equal, uint64(os.Getpid())),
		when("prctl", 0, seccomp.Equal, prSetVMA),
	}
	for _, request := range ioctls {
		calls = append(calls, when("ioctl", 1, seccomp.Equal, request))
	}
	return calls
}

func when(name string, argument uint32, op seccomp.Operation, value uint64) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{
		{Argument: argument, Operation: op, Value: value},
	}}
}
