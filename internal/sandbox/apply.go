package sandbox

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Policy says what is particular to one process.
type Policy struct {
	// User to become, by name or number, when the process is root. Empty is
	// DefaultUser where it exists, else nobody.
	User string
}

// Apply puts the process into the sandbox. On an error the process must end.
func Apply(p Policy) (Report, error) {
	preload()
	who, err := lookup(p.User)
	if err != nil {
		return nil, err
	}
	r := Report{network()}
	userLayer, err := dropUser(who)
	if err != nil {
		return nil, err
	}
	capLayer, err := dropCapabilities()
	if err != nil {
		return nil, err
	}
	return append(r, userLayer, capLayer, noNewPrivs(), noCore(), restrictPaths(), filterCalls()), nil
}

// preload makes the libraries read the files that they read at first use.
func preload() {
	_, _ = time.Now().Local().Zone() // the time zone, which the log wants
}

// dropUser gives up root. The limit on locked memory goes first: io_uring counts what
// it locks per user, and all workers share one.
func dropUser(who account) (Layer, error) {
	if !isRoot() {
		return on(LayerUser, fmt.Sprintf("uid %d, as it was started", os.Geteuid())), nil
	}
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited); err != nil && !errors.Is(err, unix.EPERM) {
		return Layer{}, fmt.Errorf("raise limit on locked memory: %w", err)
	}
	if err := dropBounding(); err != nil {
		return Layer{}, err
	}
	if err := who.become(); err != nil {
		return Layer{}, err
	}
	return on(LayerUser, fmt.Sprintf("%s, uid %d", who.name, who.uid)), nil
}

func noNewPrivs() Layer {
	if err := allPrctl(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return off(LayerNoNewPrivs, err)
	}
	return on(LayerNoNewPrivs, "an exec gains nothing")
}

// noCore comes after the change of user, which resets the flag.
func noCore() Layer {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return off(LayerCore, err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return off(LayerCore, err)
	}
	return on(LayerCore, "not dumpable, no core file")
}
