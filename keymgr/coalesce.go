package keymgr

import (
	"context"
	"fmt"
	"sync"

	"sealblk/keymgr/secret"
)

// flights are the calls that unwrap a data key right now: whoever asks for the same
// blob under the same context while one is on its way waits for its answer.
//
//	first caller ── starts ──> flight ── answer ──> a buffer for each who still waits
//	others ────── join ──────────┘
//	caller cancelled: leaves; the last one who leaves cancels the flight
type flights struct {
	wg sync.WaitGroup
	mu sync.Mutex
	by map[flightKey]*flight
}

// flightKey is everything that a call depends on.
type flightKey struct{ uri, version, blob, context string }

type flight struct {
	cancel context.CancelFunc
	done   chan struct{}

	// guarded by flights.mu
	waiting int
	landed  bool
	dk      *secret.Buffer
	err     error // of the call, or of its last attempt while it is on its way
}

// unwrap joins the flight of a key or starts one. call runs on a goroutine of its own,
// under a context that ends when nobody waits any more, and reports attempts that fail.
func (f *flights) unwrap(ctx context.Context, key flightKey, call func(ctx context.Context, failed func(error)) (*secret.Buffer, error)) (*secret.Buffer, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("unwrap data key: %w", err)
	}
	fl := f.join(ctx, key, call)
	select {
	case <-fl.done:
		return f.collect(fl)
	case <-ctx.Done():
		return nil, f.leave(fl, key, ctx.Err())
	}
}

func (f *flights) join(ctx context.Context, key flightKey, call func(context.Context, func(error)) (*secret.Buffer, error)) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.by[key]; fl != nil {
		fl.waiting++
		return fl
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fl := &flight{cancel: cancel, done: make(chan struct{}), waiting: 1}
	if f.by == nil {
		f.by = map[flightKey]*flight{}
	}
	f.by[key] = fl
	f.wg.Go(func() {
		defer cancel()
		dk, err := call(own, func(err error) { f.note(fl, err) })
		f.land(fl, key, dk, err)
	})
	return fl
}

func (f *flights) note(fl *flight, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.err = err
}

func (f *flights) land(fl *flight, key flightKey, dk *secret.Buffer, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.landed, fl.dk, fl.err = true, dk, err
	if f.by[key] == fl {
		delete(f.by, key)
	}
	if fl.waiting == 0 {
		dk.Destroy()
	}
	close(fl.done)
}

// collect takes one caller's share: a copy, or for the last caller what is there.
func (f *flights) collect(fl *flight) (*secret.Buffer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.waiting--
	switch {
	case fl.err != nil:
		return nil, fl.err
	case fl.waiting == 0:
		return fl.dk, nil
	}
	return fl.dk.Clone()
}

// leave gives a caller's place up. Its error tells what the call was at.
func (f *flights) leave(fl *flight, key flightKey, why error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := fl.err
	if fl.waiting--; fl.waiting == 0 {
		if fl.landed {
			fl.dk.Destroy()
		} else {
			fl.cancel()
			delete(f.by, key) // who comes now makes a new call
		}
	}
	if err == nil || fl.landed {
		return fmt.Errorf("unwrap data key: %w", why)
	}
	return fmt.Errorf("%w (then %w)", err, why)
}

// stop cancels all flights and waits for their goroutines.
func (f *flights) stop() {
	f.mu.Lock()
	for _, fl := range f.by {
		fl.cancel()
	}
	f.mu.Unlock()
	f.wg.Wait()
}
