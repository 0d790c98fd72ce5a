package kmstest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// recorder is a test whose failure is noted and does no harm.
type recorder struct {
	testing.TB // of the methods below only
	ctx        context.Context

	mu       sync.Mutex
	failures []string
	cleanups []func()
}

func (r *recorder) Helper()                  {}
func (r *recorder) Context() context.Context { return r.ctx }
func (r *recorder) Logf(string, ...any)      {}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Error(args ...any) { r.Errorf("%s", fmt.Sprint(args...)) }

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }

// record runs f as a test and returns what it complains of.
func record(f func(t testing.TB)) []string {
	ctx, cancel := context.WithCancel(context.Background())
	r := &recorder{ctx: ctx}
	var wg sync.WaitGroup
	wg.Go(func() { f(r) })
	wg.Wait()
	cancel()
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
	return r.failures
}
