package explain

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// SampleHz is how often a thread that is on a CPU is looked at, each second. It is not
// in step with the kernel's own clocks.
const SampleHz = 1999

// sampler is a perf event that goes off while a thread is on a CPU.
type sampler struct {
	fd   int
	link *link.RawLink
}

// openSampler makes an event of a thread and, if children is set, of those that it
// makes later.
func openSampler(tid int, children bool) (*sampler, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample: 1_000_000_000 / SampleHz, // a period, in nanoseconds
	}
	if children {
		attr.Bits = unix.PerfBitInherit
	}
	fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open clock event: %w", err)
	}
	return &sampler{fd: fd}, nil
}

func (s *sampler) attach(p *ebpf.Program) (err error) {
	s.link, err = link.AttachRawLink(link.RawLinkOptions{Target: s.fd, Program: p, Attach: ebpf.AttachPerfEvent})
	if err != nil {
		return fmt.Errorf("attach sampler: %w", err)
	}
	return nil
}

// Close stops it.
func (s *sampler) Close() error {
	var err error
	if s.link != nil {
		err = s.link.Close()
	}
	if closed := unix.Close(s.fd); err == nil {
		err = closed
	}
	return err
}
