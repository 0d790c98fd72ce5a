package keymgr

import (
	"context"
	"fmt"
	"time"
)

// GatePlaces is how many calls of a host may be on their way to one KMS at once.
const GatePlaces = 8

// Gate lets a bounded number of calls through to each KMS. A call keeps its place until
// it is over, while it waits to be tried again too: so of a thousand disks that start
// together only as many ask again and again as there are places, and the others not at
// all. Who waits gives up as a call does: when the KMS answers nobody for as long as
// limits.Silence, or when limits.Patience is over.
type Gate interface {
	// Enter waits for a place among the calls to a KMS, which is named by its scheme.
	Enter(ctx context.Context, kms string, limits Retry) (Place, error)
}

// Place is a caller's place beyond a gate.
type Place interface {
	// Silent is for how long the KMS had answered nobody while the caller waited.
	Silent() time.Duration
	// Answered tells those who wait whether the KMS answered an attempt, in whatever way.
	Answered(bool)
	// Leave gives the place up.
	Leave()
}

// open is a place where there is no gate.
type open struct{}

func (open) Silent() time.Duration { return 0 }
func (open) Answered(bool)         {}
func (open) Leave()                {}

// errNoTurn is for a caller who gave up at the gate.
func errNoTurn(kms, why string) error {
	return &Error{
		Key:  kms,
		Hint: "see whether the KMS runs and is reached from this host",
		Err:  fmt.Errorf("wait for other calls of this host: %s: %w", why, ErrUnreachable),
	}
}

func errSilent(kms string, silence time.Duration) error {
	return errNoTurn(kms, fmt.Sprintf("the KMS has answered none for %v", silence))
}

func errPatience(kms string, patience time.Duration) error {
	return errNoTurn(kms, fmt.Sprintf("no turn within %v", patience))
}
