package keymgr

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Retry says how often and when a call to a KMS is tried again. Only
// [ErrThrottled] and [ErrUnreachable] are; everything else fails at once.
type Retry struct {
	// Attempts in all. Less than 2: the call is made once.
	Attempts int
	// Base is the longest wait before the second attempt; it doubles with each
	// further one, up to Max.
	Base, Max time.Duration
	// Sleep waits, or returns the context's error; nil: by the clock.
	Sleep func(ctx context.Context, d time.Duration) error
	// Jitter picks the wait, at most d; nil: at random between d/2 and d.
	Jitter func(d time.Duration) time.Duration
}

// DefaultRetry gives up after about ten seconds.
var DefaultRetry = Retry{Attempts: 7, Base: 200 * time.Millisecond, Max: 5 * time.Second}

// Do makes the call until it succeeds, fails for good, or the attempts or ctx end.
// It returns the error of the last attempt.
func (r Retry) Do(ctx context.Context, call func() error) error {
	wait := r.Base
	for attempt := 1; ; attempt++ {
		err := call()
		if !retryable(err) {
			return err
		}
		if attempt >= r.Attempts {
			return fmt.Errorf("%w (attempt %d)", err, attempt)
		}
		if stopped := r.sleep(ctx, r.jitter(min(wait, r.Max))); stopped != nil {
			return fmt.Errorf("%w (attempt %d, then %w)", err, attempt, stopped)
		}
		wait = min(2*wait, r.Max)
	}
}

func retryable(err error) bool {
	return errors.Is(err, ErrThrottled) || errors.Is(err, ErrUnreachable)
}

func (r Retry) jitter(d time.Duration) time.Duration {
	if r.Jitter != nil {
		return r.Jitter(d)
	}
	return d - rand.N(d/2+1)
}

func (r Retry) sleep(ctx context.Context, d time.Duration) error {
	if r.Sleep != nil {
		return r.Sleep(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
