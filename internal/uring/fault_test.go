package uring

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// script answers enter calls from a list, then lets them through.
type script struct {
	errnos []unix.Errno
	calls  int
}

func (s *script) enter(fd int, n, flags uint32) (int, unix.Errno) {
	s.calls++
	if s.calls <= len(s.errnos) {
		if errno := s.errnos[s.calls-1]; errno != 0 {
			return -1, errno
		}
		n = 1 // a partial submission
	}
	return enter(fd, n, flags)
}

func TestSubmitFaults(t *testing.T) {
	for _, c := range []struct {
		name    string
		errnos  []unix.Errno
		pending int
		err     error
	}{
		{"interrupted", []unix.Errno{unix.EINTR, unix.EINTR}, 0, nil},
		{"in parts", []unix.Errno{0, unix.EINTR, 0}, 0, nil},
		{"no memory now", []unix.Errno{unix.EAGAIN}, 4, nil},
		{"no memory after the first", []unix.Errno{0, unix.EAGAIN}, 3, nil},
		{"completions first", []unix.Errno{unix.EBUSY}, 4, nil},
		{"lost completion", []unix.Errno{unix.EBADR}, 4, unix.EBADR},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRing(t, 8)
			r.enter = (&script{errnos: c.errnos}).enter
			for i := range uint64(4) {
				r.SQE().Nop(i)
			}
			if err := r.Submit(); !errors.Is(err, c.err) || r.Pending() != c.pending {
				t.Fatalf("error %v, pending %d", err, r.Pending())
			}
			submit(t, r)
			take(t, r, 4)
		})
	}
}

func TestProbeNamesMissingOperation(t *testing.T) {
	var p probe
	p.lastOp = 30
	for i := range p.ops {
		p.ops[i].flags = probeSupported
	}
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
	p.ops[opFallocate].flags = 0
	if err := p.check(); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "fallocate") {
		t.Fatal(err)
	}
	p.lastOp = opFallocate
	p.ops[opFallocate].flags = probeSupported
	if err := p.check(); err == nil || !strings.Contains(err.Error(), "read") {
		t.Fatal(err)
	}
}

func TestReasons(t *testing.T) {
	for _, c := range []struct {
		errno    unix.Errno
		disabled string
		want     string
	}{
		{unix.ENOSYS, "", "kernel has none"},
		{unix.EPERM, "2", "kernel.io_uring_disabled=2"},
		{unix.EPERM, "1", "kernel.io_uring_disabled=1"},
		{unix.EPERM, "0", "seccomp"},
		{unix.ENOMEM, "0", "RLIMIT_MEMLOCK"},
		{unix.EMFILE, "0", "open files"},
		{unix.EINVAL, "0", "refused"},
	} {
		if got := reason(c.errno, c.disabled); !strings.Contains(got, c.want) {
			t.Errorf("%v, %q: %q", c.errno, c.disabled, got)
		}
	}
	if err := unavailable(unix.ENOSYS); !errors.Is(err, ErrUnavailable) || !errors.Is(err, unix.ENOSYS) {
		t.Fatal(err)
	}
}
