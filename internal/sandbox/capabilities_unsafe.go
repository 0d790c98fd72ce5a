package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// allPrctl calls prctl on every thread.
func allPrctl(option, arg uintptr) error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, option, arg, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// dropBounding empties the bounding set. It takes CAP_SETPCAP, so it comes while the
// process is root. The kernel answers EINVAL behind the last capability it knows.
func dropBounding() error {
	for c := uintptr(0); c < 64; c++ {
		held, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			return nil
		}
		if held == 0 {
			continue
		}
		if err := allPrctl(unix.PR_CAPBSET_DROP, c); err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}

// dropCapabilities empties the permitted, effective, inheritable and ambient sets,
// which anybody may.
func dropCapabilities() (Layer, error) {
	if err := allPrctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil {
		return Layer{}, fmt.Errorf("clear ambient capabilities: %w", err)
	}
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(&none)), 0)
	runtime.KeepAlive(header)
	runtime.KeepAlive(&none)
	if errno != 0 {
		return Layer{}, fmt.Errorf("drop capabilities: %w", errno)
	}
	return on(LayerCapabilities, "every set is empty"), nil
}
