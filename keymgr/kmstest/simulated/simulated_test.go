package simulated

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"sealblk/keymgr"
	"sealblk/keymgr/kmstest"
)

func TestMain(m *testing.M) { kmstest.Main(m) }

func TestClockWakesInOrder(t *testing.T) {
	c := NewClock()
	var said []string
	for i, d := range []time.Duration{3 * time.Hour, time.Hour, 2 * time.Hour, time.Hour} {
		c.Go(func() {
			if err := c.Sleep(t.Context(), d); err != nil {
				t.Error(err)
			}
			said = append(said, fmt.Sprint(i, "@", c.Now()))
		})
	}
	c.GoAt(90*time.Minute, func() { said = append(said, fmt.Sprint("late@", c.Now())) })
	c.Run()
	want := []string{"1@1h0m0s", "3@1h0m0s", "late@1h30m0s", "2@2h0m0s", "0@3h0m0s"}
	if !slices.Equal(said, want) {
		t.Errorf("%q, want %q", said, want)
	}
}

// TestSleeperLendsItsSlot: a holder may wait for another goroutine that sleeps.
func TestSleeperLendsItsSlot(t *testing.T) {
	c := NewClock()
	c.Go(func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Sleep(context.Background(), time.Hour)
		}()
		<-done
	})
	c.Run()
	if c.Now() != time.Hour {
		t.Errorf("it is %v", c.Now())
	}
}

func TestSleepLooksAtItsContext(t *testing.T) {
	c := NewClock()
	ctx, cancel := context.WithCancel(t.Context())
	c.Go(func() {
		if err := c.Sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled meanwhile: %v", err)
		}
		if err := c.Sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) || c.Now() != time.Hour {
			t.Errorf("cancelled before: %v at %v", err, c.Now())
		}
	})
	c.GoAt(time.Minute, cancel)
	c.Run()
}

func TestGateKeepsOrder(t *testing.T) {
	c := NewClock()
	g := c.NewGate(2)
	var left []string
	for i := range 5 {
		c.Go(func() {
			place, err := g.Enter(t.Context(), Scheme, keymgr.Retry{})
			if err != nil {
				t.Error(err)
				return
			}
			c.Sleep(t.Context(), time.Hour)
			place.Leave()
			left = append(left, fmt.Sprint(i, "@", c.Now()))
		})
	}
	c.Run()
	want := []string{"0@1h0m0s", "1@1h0m0s", "2@2h0m0s", "3@2h0m0s", "4@3h0m0s"}
	if !slices.Equal(left, want) {
		t.Errorf("%q, want %q", left, want)
	}
}

// TestGateSendsAway: who waits gives up when nobody gets an answer, and not before.
func TestGateSendsAway(t *testing.T) {
	for name, test := range map[string]struct {
		answers bool
		limits  keymgr.Retry
		want    time.Duration
	}{
		"silence":           {false, keymgr.Retry{Silence: time.Minute, Patience: time.Hour}, 10*time.Minute + time.Minute},
		"patience":          {true, keymgr.Retry{Silence: time.Minute, Patience: time.Hour}, time.Hour},
		"silence, no limit": {false, keymgr.Retry{Patience: time.Hour}, time.Hour},
	} {
		c := NewClock()
		g := c.NewGate(1)
		c.Go(func() {
			place, err := g.Enter(t.Context(), Scheme, test.limits)
			if err != nil {
				t.Error(err)
				return
			}
			c.Sleep(t.Context(), 5*time.Minute)
			place.Answered(true)
			c.Sleep(t.Context(), 5*time.Minute)
			place.Answered(test.answers)
			c.Sleep(t.Context(), 5*time.Hour)
			place.Leave()
		})
		for range 3 {
			c.Go(func() {
				place, err := g.Enter(t.Context(), Scheme, test.limits)
				if err == nil {
					place.Leave()
				}
				if !errors.Is(err, keymgr.ErrUnreachable) || c.Now() != test.want {
					t.Errorf("%s: %v at %v, want to be sent away at %v", name, err, c.Now(), test.want)
				}
			})
		}
		c.Run()
	}
}

func TestBucket(t *testing.T) {
	b := newBucket(10, 5)
	taken := 0
	for ms := range 10_000 { // ten seconds, a thousand calls a second
		if b.take(time.Duration(ms) * time.Millisecond) {
			taken++
		}
	}
	if taken < 100 || taken > 105 {
		t.Errorf("%d taken in ten seconds at 10 a second with a burst of 5", taken)
	}
}

// virtual runs f on a KMS on a clock.
func virtual(opts Options, f func(k *KMS, c *Clock)) *KMS {
	c := NewClock()
	opts.Time = c
	k := New(opts)
	c.Go(func() { f(k, c) })
	c.Run()
	return k
}

func TestLimitLatencyAndLoad(t *testing.T) {
	k := virtual(Options{Limit: 10, Burst: 10, Latency: Latency{Min: time.Millisecond}}, func(k *KMS, c *Clock) {
		k.CreateKey("k")
		throttled := 0
		for range 30 {
			if _, err := k.DescribeKey(t.Context(), "k"); errors.Is(err, keymgr.ErrThrottled) {
				throttled++
			}
		}
		if throttled != 20 || c.Now() != 30*time.Millisecond {
			t.Errorf("%d throttled of 30, at %v", throttled, c.Now())
		}
	})
	if want := []Second{{Offered: 30, Taken: 10, Throttled: 20}}; !slices.Equal(k.Load(), want) {
		t.Errorf("load %+v", k.Load())
	}
}

func TestOutageAndLoss(t *testing.T) {
	virtual(Options{Outages: []Outage{{time.Second, 2 * time.Second}}}, func(k *KMS, c *Clock) {
		k.CreateKey("k")
		for _, want := range []error{nil, keymgr.ErrUnreachable, nil} {
			if _, err := k.DescribeKey(t.Context(), "k"); !errors.Is(err, want) {
				t.Errorf("at %v: %v", c.Now(), err)
			}
			c.Sleep(t.Context(), time.Second)
		}
	})
	virtual(Options{Loss: 0.1, Seed: 7}, func(k *KMS, _ *Clock) {
		k.CreateKey("k")
		lost := 0
		for range 1000 {
			dk, _, err := k.GenerateDataKey(t.Context(), "k", nil)
			dk.Destroy()
			if errors.Is(err, keymgr.ErrUnreachable) {
				lost++
			}
		}
		if lost < 60 || lost > 140 {
			t.Errorf("%d of 1000 lost at 10 %%", lost)
		}
	})
}

func TestLatencyIsAsAskedFor(t *testing.T) {
	l := Latency{Min: 2 * time.Millisecond, Median: 8 * time.Millisecond, P99: 60 * time.Millisecond}
	r := New(Options{Seed: 3}).random
	var all []time.Duration
	for range 10_000 {
		all = append(all, l.draw(r))
	}
	slices.Sort(all)
	near := func(got, want time.Duration) bool { return got > want*9/10 && got < want*11/10 }
	if !near(all[5000], 10*time.Millisecond) || !near(all[9900], 62*time.Millisecond) || all[0] < l.Min {
		t.Errorf("median %v, 99th percentile %v, least %v", all[5000], all[9900], all[0])
	}
	if (Latency{}).draw(r) != 0 {
		t.Error("no latency takes time")
	}
}
