package keymgr

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// recorded is a retry policy that sleeps on paper, always as long as it may.
func recorded(waits *[]time.Duration) Retry {
	r := DefaultRetry
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r.Jitter = func(_, most time.Duration) time.Duration { return most }
	r.Now = func() time.Time { return now }
	r.Sleep = func(ctx context.Context, d time.Duration) error {
		*waits = append(*waits, d)
		now = now.Add(d)
		return ctx.Err()
	}
	return r
}

func sum(waits []time.Duration) (total time.Duration) {
	for _, w := range waits {
		total += w
	}
	return total
}

func TestRetryGivesUpWhatIsDown(t *testing.T) {
	for want, policy := range map[time.Duration]Retry{10 * time.Second: DefaultRetry, 2 * time.Minute: PatientRetry} {
		var waits []time.Duration
		r := recorded(&waits)
		r.Silence = policy.Silence
		err := r.Do(t.Context(), func() error { return ErrUnreachable })
		if !errors.Is(err, ErrUnreachable) || sum(waits) != want {
			t.Errorf("waits %v, in all %v, want %v, error %v", waits, sum(waits), want, err)
		}
	}
}

func TestRetryBacksOff(t *testing.T) {
	var waits []time.Duration
	calls := 0
	err := recorded(&waits).Do(t.Context(), func() error {
		calls++
		return fmt.Errorf("call %d: %w", calls, ErrThrottled)
	})
	ms := time.Millisecond
	want := []time.Duration{600 * ms, 1800 * ms, 5000 * ms, 5000 * ms, 5000 * ms, 5000 * ms}
	if !errors.Is(err, ErrThrottled) || !slices.Equal(waits[:6], want) || sum(waits) != 10*time.Minute {
		t.Errorf("%d calls, waits %v, in all %v, error %v", calls, waits, sum(waits), err)
	}
}

// TestRetryIsPatientWithWhatAnswers: an outage that ends does not count any more.
func TestRetryIsPatientWithWhatAnswers(t *testing.T) {
	var waits []time.Duration
	r := recorded(&waits)
	calls := 0
	err := r.Do(t.Context(), func() error {
		if calls++; sum(waits) > 5*time.Minute {
			return nil
		}
		if calls%2 == 0 {
			return ErrThrottled
		}
		return ErrUnreachable
	})
	if err != nil {
		t.Errorf("given up after %v and %d calls: %v", sum(waits), calls, err)
	}
}

func TestRetryCountsAttempts(t *testing.T) {
	for attempts, want := range map[int]int{1: 1, 2: 2, 7: 7} {
		calls := 0
		err := Retry{Attempts: attempts, Sleep: func(context.Context, time.Duration) error { return nil }}.Do(t.Context(), func() error {
			calls++
			return ErrUnreachable
		})
		if !errors.Is(err, ErrUnreachable) || calls != want {
			t.Errorf("%d attempts: %d calls, %v", attempts, calls, err)
		}
	}
	calls := 0
	if err := (Retry{}).Do(t.Context(), func() error { calls++; return ErrThrottled }); !errors.Is(err, ErrThrottled) || calls != 1 {
		t.Errorf("no policy: %d calls, %v", calls, err)
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

// TestRetryKnowsStrangers: a server that nobody vouches for does not become another; one
// whose certificate is not valid may be, once the clock is right.
func TestRetryKnowsStrangers(t *testing.T) {
	for _, c := range []struct {
		verdict error
		calls   int
	}{
		{x509.UnknownAuthorityError{}, 1},
		{x509.HostnameError{Certificate: &x509.Certificate{}, Host: "kms"}, 1},
		{x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}, 3},
	} {
		var waits []time.Duration
		calls := 0
		r := recorded(&waits)
		r.Attempts = 3
		err := r.Do(t.Context(), func() error {
			calls++
			return fmt.Errorf("%w: %w", ErrUnreachable, &tls.CertificateVerificationError{Err: c.verdict})
		})
		if !errors.Is(err, ErrUnreachable) || calls != c.calls {
			t.Errorf("%T: %d calls, want %d: %v", c.verdict, calls, c.calls, err)
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
		d := Retry{}.jitter(time.Second, 3*time.Second)
		if d < time.Second || d > 3*time.Second {
			t.Fatalf("wait %v", d)
		}
		seen[d] = true
	}
	if len(seen) < 500 {
		t.Errorf("only %d different waits", len(seen))
	}
	if d := (Retry{}).jitter(0, 0); d != 0 {
		t.Errorf("wait %v for nothing", d)
	}
}
