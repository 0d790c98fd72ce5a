package explain

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// maxProcesses is how many one collector watches: MAX_PROCESSES of the program.
const maxProcesses = 16

// Collector watches processes until it is closed.
type Collector struct {
	pids        []int
	from, until uint64 // CLOCK_MONOTONIC, in nanoseconds
	objects     collectorObjects
	attached    []io.Closer
}

// Watch attaches a collector to processes. It counts nothing before Between.
func Watch(pids []int) (*Collector, error) {
	if len(pids) == 0 || len(pids) > maxProcesses {
		return nil, fmt.Errorf("%w: %d (1 to %d)", ErrProcesses, len(pids), maxProcesses)
	}
	if runtime.GOARCH != "amd64" {
		return nil, ErrUnsupported // the program reads amd64's registers
	}
	c := &Collector{pids: pids}
	if err := c.load(); err != nil {
		return nil, err
	}
	err := c.attach()
	if err == nil {
		err = c.watchThreads()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Collector) load() error {
	spec, err := loadCollector()
	if err != nil {
		return fmt.Errorf("read collector: %w", err)
	}
	var watched [maxProcesses]uint32
	for i, pid := range c.pids {
		watched[i] = uint32(pid)
	}
	if err := spec.Variables["watched"].Set(watched); err != nil {
		return fmt.Errorf("set collector's processes: %w", err)
	}
	if err := spec.LoadAndAssign(&c.objects, nil); err != nil {
		return fmt.Errorf("load collector: %w", diagnose(err))
	}
	return nil
}

func (c *Collector) attach() error {
	o := &c.objects
	for _, p := range []*ebpf.Program{
		o.SchedSwitch, o.SchedWaking, o.SchedWakeup, o.SysEnter, o.SysExit, o.PageFaultUser, o.PageFaultKernel,
		o.BlockBioQueue, o.BlockSplit, o.BlockBioComplete, o.BlockRqIssue, o.BlockRqComplete,
	} {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return fmt.Errorf("attach collector: %w", diagnose(err))
		}
		c.attached = append(c.attached, l)
	}
	return nil
}

// Between has the collector count from one time to another; both may lie ahead. It is
// called once.
func (c *Collector) Between(from, until time.Time) error {
	var clock unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &clock); err != nil {
		return fmt.Errorf("read clock: %w", err)
	}
	now := time.Now()
	c.from = uint64(clock.Nano() + from.Sub(now).Nanoseconds())
	c.until = uint64(clock.Nano() + until.Sub(now).Nanoseconds())
	// In this order: nothing counts until the second is set.
	if err := c.objects.From.Set(c.from); err != nil {
		return fmt.Errorf("set collector's time: %w", err)
	}
	if err := c.objects.Until.Set(c.until); err != nil {
		return fmt.Errorf("set collector's time: %w", err)
	}
	return nil
}

// Close takes the collector out of the kernel.
func (c *Collector) Close() error {
	var errs []error
	for _, a := range c.attached {
		errs = append(errs, a.Close())
	}
	c.attached = nil
	return errors.Join(append(errs, c.objects.Close())...)
}
