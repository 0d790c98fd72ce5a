package keymgr

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Retry says how often and when a call to a KMS is tried again. Only
// [ErrThrottled] and [ErrUnreachable] are; everything else fails at once, and so does
// what a [Stranger] answered.
//
// A KMS that throttles is there, and a caller's turn comes: it is asked again until
// Patience is over. One that cannot be reached may be down for good: it is given up
// when that has gone on for Silence.
//
// Waits are decorrelated: each is at random between Base and three times the one
// before, at most Max. So callers that were refused together do not come back
// together, and the more of them there are, the further apart each of them asks.
type Retry struct {
	// Attempts in all; 0: as many as fit into Patience, or one if there is none.
	Attempts int
	// Patience is how long after its beginning a call is tried again; 0: Attempts alone
	// count.
	Patience time.Duration
	// Silence is how long after the first of a row of ErrUnreachable a call is tried
	// again; 0: it does not count.
	Silence time.Duration
	// Base and Max are the shortest and the longest wait.
	Base, Max time.Duration
	// Sleep waits, or returns the context's error; nil: by the clock.
	Sleep func(ctx context.Context, d time.Duration) error
	// Now is the clock; nil: the system's.
	Now func() time.Time
	// Jitter picks a wait; nil: at random.
	Jitter func(least, most time.Duration) time.Duration

	// silent is how long nobody was answered when the call begins.
	silent time.Duration
}

// DefaultRetry is for calls that a person waits for: a KMS that is down is given up
// after ten seconds.
var DefaultRetry = Retry{Patience: 10 * time.Minute, Silence: 10 * time.Second, Base: 200 * time.Millisecond, Max: 5 * time.Second}

// PatientRetry is for disks that start with their host, maybe with a whole site, when
// nobody is there to try again, and the KMS may come up later.
var PatientRetry = Retry{Patience: 10 * time.Minute, Silence: 2 * time.Minute, Base: 200 * time.Millisecond, Max: 5 * time.Second}

// Do makes the call until it succeeds, fails for good, or attempts, time or ctx end.
// It returns the error of the last attempt.
func (r Retry) Do(ctx context.Context, call func() error) error {
	start := r.now()
	var silent time.Time // since then; zero: it answers
	if r.silent > 0 {
		silent = start.Add(-r.silent)
	}
	wait := r.Base
	for attempt := 1; ; attempt++ {
		err := call()
		if !retryable(err) {
			return err
		}
		now := r.now()
		if !errors.Is(err, ErrUnreachable) {
			silent = time.Time{}
		} else if silent.IsZero() {
			silent = now
		}
		wait = r.jitter(r.Base, min(3*wait, r.Max))
		left, more := r.left(attempt, now.Sub(start), silent, now)
		if !more {
			return fmt.Errorf("%w (attempt %d)", err, attempt)
		}
		if stopped := r.sleep(ctx, min(wait, left)); stopped != nil {
			return fmt.Errorf("%w (attempt %d, then %w)", err, attempt, stopped)
		}
	}
}

// left is how long the next attempt may wait, if there may be one.
func (r Retry) left(attempt int, gone time.Duration, silent, now time.Time) (left time.Duration, more bool) {
	left = math.MaxInt64
	if r.Attempts > 0 && attempt >= r.Attempts || r.Attempts == 0 && r.Patience == 0 {
		return 0, false
	}
	if r.Patience > 0 {
		left = min(left, r.Patience-gone)
	}
	if r.Silence > 0 && !silent.IsZero() {
		left = min(left, r.Silence-now.Sub(silent))
	}
	return left, left > 0
}

func retryable(err error) bool {
	return errors.Is(err, ErrThrottled) || errors.Is(err, ErrUnreachable) && !Stranger(err)
}

// Stranger tells whether a call failed because nobody vouches for who answered, or for
// another name than was asked for. That does not pass, as a certificate does that is not
// valid yet on a host whose clock is not set yet.
func Stranger(err error) bool {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	return errors.As(err, &unknown) || errors.As(err, &name)
}

func (r Retry) jitter(least, most time.Duration) time.Duration {
	if r.Jitter != nil {
		return r.Jitter(least, most)
	}
	return least + rand.N(max(most-least, 0)+1)
}

func (r Retry) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
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
