package sandbox

import "errors"

var (
	// ErrUser: the user to become is unknown, or is root.
	ErrUser = errors.New("no such unprivileged user")
	// errNotRoot: only root can do it, and need not where it is not root.
	errNotRoot = errors.New("the process was not started as root")
	// errPartial: a thread could not take the filter.
	errPartial = errors.New("a thread has a filter of its own")
	// errNoLandlock: the kernel is older than 5.13 or was started without it.
	errNoLandlock = errors.New("the kernel does not offer it (Linux 5.13, and landlock in the list of LSMs)")
	// errNoSeccomp: the kernel was built without it.
	errNoSeccomp = errors.New("the kernel does not offer it (CONFIG_SECCOMP_FILTER)")
)
