package guest

import (
	"errors"
	"fmt"
)

var (
	// ErrNoAssets is wrapped when the machine lacks what a guest is made of.
	ErrNoAssets = errors.New("no guest to boot")
	// ErrGone is wrapped when QEMU ends while its guest is needed.
	ErrGone = errors.New("the guest has ended")
)

// ExitError is a script that ended with another status than 0.
type ExitError struct {
	Script string
	Result Result
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("guest: %q: exit status %d: %s", e.Script, e.Result.Status, e.Result.Output)
}
