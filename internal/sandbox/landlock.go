package sandbox

import (
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// erratumSignals is the bit of the fix by which threads of one process may signal
// each other inside a domain (Linux 6.15, and what it was taken back to). Without it
// the Go scheduler could not preempt, and signals are left to seccomp.
const erratumSignals = 1 << 1

// restrictPaths refuses every path, every TCP port, abstract sockets and signals to
// others, as far as the kernel's version of Landlock can.
func restrictPaths() Layer {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return off(LayerLandlock, errNoLandlock)
	}
	c := landlock.V11
	if errata, err := ll.LandlockGetErrata(); err != nil || errata&erratumSignals == 0 {
		c.Scoped = 0
	}
	if err := c.BestEffort().Restrict(); err != nil {
		return off(LayerLandlock, err)
	}
	return on(LayerLandlock, fmt.Sprintf("ABI %d, no path is allowed", abi))
}
