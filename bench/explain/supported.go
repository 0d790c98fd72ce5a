package explain

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// Supported is nil if this process can watch others, else what is missing. A program is
// loaded and attached to find out: rights alone do not tell.
func Supported() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sched_switch", License: "Dual MIT/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return diagnose(err)
	}
	defer p.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		return diagnose(err)
	}
	defer l.Close()
	event, err := openSampler(os.Getpid(), false)
	if err != nil {
		return diagnose(err)
	}
	return event.Close()
}

// diagnose names the usual reasons.
func diagnose(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return ErrForbidden
	case runtime.GOARCH != "amd64", errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, os.ErrNotExist):
		return ErrUnsupported
	}
	return fmt.Errorf("%w: %w", ErrUnsupported, err)
}
