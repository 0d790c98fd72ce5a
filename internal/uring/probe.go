package uring

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const sysctl = "/proc/sys/kernel/io_uring_disabled"

// required are the operations without which the package is of no use.
var required = []struct {
	op   uint8
	name string
}{
	{opNop, "nop"}, {opReadv, "readv"}, {opWritev, "writev"}, {opFsync, "fsync"},
	{opReadFixed, "read_fixed"}, {opWriteFixed, "write_fixed"}, {opPollAdd, "poll_add"},
	{opTimeout, "timeout"}, {opFallocate, "fallocate"}, {opRead, "read"}, {opWrite, "write"},
}

// Probe tries io_uring on this host: nil, or ErrUnavailable with the reason.
func Probe() error {
	r, err := New(Config{Entries: 1})
	if err != nil {
		return err
	}
	return errors.Join(r.probe(), r.Close())
}

func (r *Ring) probe() error {
	var p probe
	if errno := r.probeOps(&p); errno != 0 {
		return fmt.Errorf("probe operations: %w: %w (kernel older than 5.6?)", ErrUnavailable, errno)
	}
	return p.check()
}

func (p *probe) check() error {
	for _, w := range required {
		if w.op > p.lastOp || p.ops[w.op].flags&probeSupported == 0 {
			return fmt.Errorf("%w: the kernel lacks the operation %s", ErrUnavailable, w.name)
		}
	}
	return nil
}

// unavailable says why a ring could not be set up.
func unavailable(errno unix.Errno) error {
	value, _ := os.ReadFile(sysctl)
	return fmt.Errorf("%w: %w: %s", ErrUnavailable, errno, reason(errno, strings.TrimSpace(string(value))))
}

func reason(errno unix.Errno, disabled string) string {
	switch errno {
	case unix.ENOSYS:
		return "the kernel has none"
	case unix.EPERM, unix.EACCES:
		if disabled == "1" || disabled == "2" {
			return "switched off by the sysctl kernel.io_uring_disabled=" + disabled
		}
		return "forbidden by a seccomp filter or a security module"
	case unix.ENOMEM:
		return "no memory, or RLIMIT_MEMLOCK is too low"
	case unix.EMFILE, unix.ENFILE:
		return "too many open files"
	}
	return "refused by the kernel"
}
