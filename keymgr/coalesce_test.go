package keymgr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sealblk/keymgr/secret"
)

// gated is a KMS whose Decrypt waits until the test lets it go on.
type gated struct {
	fake
	calls   atomic.Int32
	begun   chan string // what is asked, when a call begins
	proceed chan error  // the answer: nil is a data key
}

func newGated() *gated {
	return &gated{fake: fake{dk: goodKey()}, begun: make(chan string, 100), proceed: make(chan error)}
}

func (g *gated) Decrypt(ctx context.Context, w WrappedKey, ec Context) (*secret.Buffer, error) {
	g.calls.Add(1)
	g.begun <- fmt.Sprint(w.URI, " ", w.Version, " ", string(w.Blob), " ", ec)
	select {
	case err := <-g.proceed:
		if err != nil {
			return nil, err
		}
		return g.key()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (g *gated) set(t *testing.T, retry Retry) *Set {
	s := NewSet(retry, map[string]Opener{"fake": func(context.Context) (KMS, error) { return g, nil }})
	t.Cleanup(func() { s.Close() })
	return s
}

var wrapped = WrappedKey{URI: "fake:k", Version: "1", Blob: []byte("blob")}

type answer struct {
	dk  *secret.Buffer
	err error
}

// ask has callers unwrap the same blob, and returns when all of them wait.
func ask(ctx context.Context, s *Set, n int) <-chan answer {
	answers := make(chan answer, n)
	for range n {
		go func() {
			dk, err := s.Decrypt(ctx, wrapped, Context{ContextDisk: "1"})
			answers <- answer{dk, err}
		}()
	}
	return answers
}

// waiting waits until so many callers wait in flights.
func waiting(s *Set, n int) {
	for {
		s.flights.mu.Lock()
		have := 0
		for _, f := range s.flights.by {
			have += f.waiting
		}
		s.flights.mu.Unlock()
		if have == n {
			return
		}
	}
}

func TestDecryptsOfOneBlobShareACall(t *testing.T) {
	g := newGated()
	s := g.set(t, Retry{})
	const callers = 20
	live, _ := secret.Live()
	answers := ask(t.Context(), s, callers)
	waiting(s, callers)
	g.proceed <- nil
	buffers := map[*secret.Buffer]bool{}
	for range callers {
		a := <-answers
		if a.err != nil {
			t.Fatal(a.err)
		}
		if !bytes.Equal(a.dk.Bytes(), goodKey()) {
			t.Error("another data key")
		}
		buffers[a.dk] = true
	}
	if n, _ := secret.Live(); len(buffers) != callers || n-live != callers || g.calls.Load() != 1 {
		t.Errorf("%d calls, %d buffers for %d callers, %d in memory", g.calls.Load(), len(buffers), callers, n-live)
	}
	for dk := range buffers {
		dk.Bytes()[0] ^= 1 // nobody else's
		dk.Destroy()
	}
	// A later caller makes a call of its own.
	answers = ask(t.Context(), s, 1)
	g.proceed <- nil
	(<-answers).dk.Destroy()
	if g.calls.Load() != 2 {
		t.Errorf("%d calls", g.calls.Load())
	}
}

func TestDifferentDecryptsShareNothing(t *testing.T) {
	g := newGated()
	s := g.set(t, Retry{})
	asks := map[string]struct {
		w  WrappedKey
		ec Context
	}{
		"blob":    {WrappedKey{"fake:k", "1", []byte("other")}, Context{ContextDisk: "1"}},
		"version": {WrappedKey{"fake:k", "2", []byte("blob")}, Context{ContextDisk: "1"}},
		"key":     {WrappedKey{"fake:k2", "1", []byte("blob")}, Context{ContextDisk: "1"}},
		"context": {wrapped, Context{ContextDisk: "2"}},
		"none":    {wrapped, nil},
		"first":   {wrapped, Context{ContextDisk: "1"}},
	}
	var wg sync.WaitGroup
	for name, a := range asks {
		wg.Go(func() {
			dk, err := s.Decrypt(t.Context(), a.w, a.ec)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			dk.Destroy()
		})
	}
	different := map[string]bool{}
	for range asks {
		different[<-g.begun] = true
	}
	for range asks {
		g.proceed <- nil
	}
	wg.Wait()
	if len(different) != len(asks) {
		t.Errorf("calls: %v", different)
	}
}

func TestFailureIsShared(t *testing.T) {
	g := newGated()
	s := g.set(t, Retry{})
	answers := ask(t.Context(), s, 3)
	waiting(s, 3)
	g.proceed <- ErrDisabled
	for range 3 {
		if a := <-answers; a.dk != nil || !errors.Is(a.err, ErrDisabled) {
			t.Errorf("%v", a.err)
		}
	}
}

func TestCancelledCallerLeavesTheOthers(t *testing.T) {
	g := newGated()
	s := g.set(t, Retry{})
	ctx, cancel := context.WithCancel(t.Context())
	first := ask(ctx, s, 1) // the one who started the call
	waiting(s, 1)
	others := ask(t.Context(), s, 2)
	waiting(s, 3)
	cancel()
	if a := <-first; a.dk != nil || !errors.Is(a.err, context.Canceled) {
		t.Errorf("cancelled: %v", a.err)
	}
	g.proceed <- nil
	for range 2 {
		a := <-others
		if a.err != nil || g.calls.Load() != 1 {
			t.Errorf("%v, %d calls", a.err, g.calls.Load())
		}
		a.dk.Destroy()
	}
}

func TestCallEndsWhenNobodyWaits(t *testing.T) {
	live, _ := secret.Live()
	g := newGated()
	s := g.set(t, Retry{})
	ctx, cancel := context.WithCancel(t.Context())
	all := ask(ctx, s, 2)
	waiting(s, 2)
	<-g.begun
	cancel()
	for range 2 {
		if a := <-all; !errors.Is(a.err, context.Canceled) {
			t.Errorf("%v", a.err)
		}
	}
	// Who comes now does not join a call that is being cancelled.
	answers := ask(t.Context(), s, 1)
	<-g.begun
	g.proceed <- nil
	a := <-answers
	if a.err != nil {
		t.Error(a.err)
	}
	a.dk.Destroy()
	s.Close() // waits for the cancelled call
	if n, _ := secret.Live(); n != live {
		t.Errorf("%d secrets stayed in memory", n-live)
	}
	dk, err := s.Decrypt(ctx, wrapped, nil)
	if dk != nil || !errors.Is(err, context.Canceled) || g.calls.Load() != 2 {
		t.Errorf("cancelled before the call: %v, %d calls", err, g.calls.Load())
	}
}

// TestDeadlineTellsWhatFailed: who waits for a KMS that is down learns that it is down.
func TestDeadlineTellsWhatFailed(t *testing.T) {
	g := newGated()
	slept := make(chan struct{})
	s := g.set(t, Retry{Attempts: 5, Sleep: func(ctx context.Context, _ time.Duration) error {
		close(slept)
		<-ctx.Done()
		return ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	all := ask(ctx, s, 1)
	g.proceed <- fmt.Errorf("dial: %w", ErrUnreachable)
	<-slept
	cancel()
	if a := <-all; !errors.Is(a.err, context.Canceled) || !errors.Is(a.err, ErrUnreachable) {
		t.Errorf("%v", a.err)
	}
}

func TestManyCallersComeAndGo(t *testing.T) {
	f := &lockedFake{fake: fake{dk: goodKey()}}
	s := NewSet(Retry{}, map[string]Opener{"fake": func(context.Context) (KMS, error) { return f, nil }})
	live, _ := secret.Live()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+j)%3 == 0 {
					go cancel()
				}
				dk, err := s.Decrypt(ctx, wrapped, Context{ContextDisk: fmt.Sprint(j % 2)})
				if err == nil && !bytes.Equal(dk.Bytes(), goodKey()) {
					t.Error("another data key")
				}
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				dk.Destroy()
				cancel()
			}
		})
	}
	wg.Wait()
	s.Close()
	if n, _ := secret.Live(); n != live {
		t.Errorf("%d secrets stayed in memory", n-live)
	}
}

// lockedFake may be called from any goroutine.
type lockedFake struct {
	fake
	mu sync.Mutex
}

func (f *lockedFake) Decrypt(ctx context.Context, w WrappedKey, ec Context) (*secret.Buffer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return f.fake.Decrypt(ctx, w, ec)
}
