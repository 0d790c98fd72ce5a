package keymgr

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"sealblk/internal/filelock"
)

// GatePlaces is how many calls of a host may be on their way to its KMSs at once.
const GatePlaces = 8

// Gate lets a bounded number of calls through. A call keeps its place until it is over,
// while it waits to be tried again too: so of a thousand disks that start together only
// as many ask again and again as there are places, and the others not at all.
type Gate interface {
	// Enter waits for a place until ctx ends or so much time is over. leave gives it up.
	Enter(ctx context.Context, longest time.Duration) (leave func(), err error)
}

// FileGate is the gate of all processes of a host: a file for each place, which is
// locked by whoever has it, so that a process that dies gives its place up.
type FileGate struct {
	// Dir has the files; it must be there.
	Dir string
	// Places; 0: GatePlaces.
	Places int
}

// Enter takes a place. Where files cannot be locked there is no gate.
func (g FileGate) Enter(ctx context.Context, longest time.Duration) (leave func(), err error) {
	places := g.Places
	if places == 0 {
		places = GatePlaces
	}
	first := rand.N(places)
	for i := range places {
		f, err := filelock.Try(g.path((first + i) % places))
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, filelock.ErrLocked) {
			return func() {}, nil
		}
	}
	wait, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	f, err := filelock.Wait(wait, g.path(first))
	switch {
	case err == nil:
		return func() { f.Close() }, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case wait.Err() != nil:
		return nil, &Error{
			Hint: "see whether the KMS answers, and what other disks of this host wait for",
			Err:  fmt.Errorf("wait for %d other calls of this host: %w", places, ErrUnreachable),
		}
	}
	return func() {}, nil
}

func (g FileGate) path(place int) string {
	return filepath.Join(g.Dir, fmt.Sprintf("kms-call-%d.lock", place))
}
