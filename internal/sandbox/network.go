package sandbox

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// network moves the process into a network namespace of its own. Sockets that are
// open stay in theirs. Only root can.
func network() Layer {
	if !isRoot() {
		return off(LayerNetwork, errNotRoot)
	}
	if err := unshareNetwork(); err != nil {
		return off(LayerNetwork, err)
	}
	return on(LayerNetwork, "no interface but a loopback that is down")
}

// unshareNetwork makes the namespace on one thread and takes the others in: unshare
// itself works per thread.
func unshareNetwork() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	if _, _, errno := psx.Syscall3(unix.SYS_SETNS, ns.Fd(), unix.CLONE_NEWNET, 0); errno != 0 {
		return fmt.Errorf("enter network namespace: %w", errno)
	}
	return nil
}
