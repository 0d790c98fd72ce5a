package explain

import (
	"strconv"
	"sync"

	"github.com/elastic/go-seccomp-bpf/arch"
)

// systemCalls are the names of this processor's system calls.
var systemCalls = sync.OnceValue(func() map[int]string {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil // they go by their numbers
	}
	return info.SyscallNumbers
})

// callName is a system call's name, or that of what is like one.
func callName(nr int32) string {
	switch nr {
	case inUser:
		return "(page fault)"
	case inWorker:
		return "(kernel thread)"
	case inUnknown:
		return "(before)"
	}
	if name := systemCalls()[int(nr)]; name != "" {
		return name
	}
	return "system call " + strconv.Itoa(int(nr))
}
