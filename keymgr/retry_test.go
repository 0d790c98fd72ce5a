package keymgr

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// recorded is a retry policy that sleeps on paper.
func recorded(waits *[]time.Duration) Retry {
	r := DefaultRetry
	r.Jitter = func(d time.Duration) time.Duration { return d }
	r.Sleep = func(ctx context.Context, d time.Duration) error {
		*waits = append(*waits, d)
		return ctx.Err()
	}
	return r
}

func TestRetryBacksOffUntilItGivesUp(t *testing.T) {
	for _, transient := range []error{ErrThrottled, ErrUnreachable} {
		var waits []time.Duration
		calls := 0
		err := recorded(&waits).Do(t.Context(), func() error {
			calls++
			return fmt.Errorf("call %d: %w", calls, transient)
		})
		ms := time.Millisecond
		want := []time.Duration{200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms}
		if !errors.Is(err, transient) || calls != 7 || !slices.Equal(waits, want) {
			t.Errorf("%d calls, waits %v, error %v", calls, waits, err)
		}
	}
}

func TestRetryStopsAtSuccessAndAtFinalErrors(t *testing.T) {
	for _, final := range []error{nil, ErrNotFound, ErrDisabled, ErrAccessDenied, ErrContextMismatch, ErrCorrupt, errors.New("other")} {
		var waits []time.Duration
		calls := 0
		err := recorded(&waits).Do(t.Context(), func() error {
			if calls++; calls < 3 {
				return ErrThrottled
			}
			return final
		})
		if !errors.Is(err, final) || calls != 3 || len(waits) != 2 {
			t.Errorf("final %v: %d calls, error %v", final, calls, err)
		}
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := Retry{Attempts: 5, Base: time.Hour, Max: time.Hour}.Do(ctx, func() error {
		calls++
		cancel()
		return ErrUnreachable
	})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnreachable) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestRetryJitterStaysInBounds(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 1000 {
		d := Retry{}.jitter(time.Second)
		if d < time.Second/2 || d > time.Second {
			t.Fatalf("wait %v for a second", d)
		}
		seen[d] = true
	}
	if len(seen) < 500 {
		t.Errorf("only %d different waits", len(seen))
	}
	if d := (Retry{}).jitter(0); d != 0 {
		t.Errorf("wait %v for nothing", d)
	}
}
