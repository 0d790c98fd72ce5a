package vhost

import (
	"testing"
	"time"
)

func TestPollerLearns(t *testing.T) {
	const us = time.Microsecond
	p := poller{limit: 32 * us}
	for _, step := range []struct {
		name string
		idle time.Duration
		want time.Duration
	}{
		{"slow: does not start", time.Millisecond, 0},
		{"fast: starts", 2 * us, pollFirst},
		{"fast: grows", 20 * us, 8 * us},
		{"fast: grows", 30 * us, 16 * us},
		{"just within the limit", 32 * us, 32 * us},
		{"fast: stays within the limit", us, 32 * us},
		{"slow: shrinks", 33 * us, 16 * us},
		{"slow: shrinks", time.Second, 8 * us},
		{"slow: shrinks", time.Second, 4 * us},
		{"slow: stops", time.Second, 0},
		{"slow: stays away", time.Second, 0},
	} {
		if p.learn(step.idle); p.window != step.want {
			t.Errorf("%s: after %v idle the window is %v, want %v", step.name, step.idle, p.window, step.want)
		}
	}
	off := poller{}
	for range 10 {
		if off.learn(us); off.window != 0 {
			t.Fatalf("a poller that may not poll does so for %v", off.window)
		}
	}
}
