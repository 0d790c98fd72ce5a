package keymgr

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestFileGateBoundsCallers(t *testing.T) {
	g := FileGate{Dir: t.TempDir(), Places: 3}
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			leave, err := g.Enter(t.Context(), time.Minute)
			if err != nil {
				t.Error(err)
				return
			}
			n := inside.Add(1)
			for {
				m := most.Load()
				if n <= m || most.CompareAndSwap(m, n) {
					break
				}
			}
			time.Sleep(time.Millisecond) // work
			inside.Add(-1)
			leave()
		})
	}
	wg.Wait()
	if most.Load() > 3 {
		t.Errorf("%d were inside at once", most.Load())
	}
}

func TestFileGateEnds(t *testing.T) {
	g := FileGate{Dir: t.TempDir(), Places: 1}
	leave, err := g.Enter(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.Enter(t.Context(), time.Millisecond)
	var e *Error
	if !errors.Is(err, ErrUnreachable) || !errors.As(err, &e) || e.Hint == "" {
		t.Errorf("no place in time: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := g.Enter(ctx, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	leave()
	leave, err = g.Enter(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

// TestNoGateWithoutFiles: a gate that cannot be had keeps nobody out.
func TestNoGateWithoutFiles(t *testing.T) {
	leave, err := FileGate{Dir: filepath.Join(t.TempDir(), "none")}.Enter(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

// notedGate notes who comes and goes.
type notedGate struct{ entered, left int }

func (g *notedGate) Enter(context.Context, time.Duration) (func(), error) {
	g.entered++
	return func() { g.left++ }, nil
}

func TestCallsKeepTheirPlace(t *testing.T) {
	for name, errs := range map[string][]error{
		"at once": nil, "tried again": {ErrThrottled, ErrUnreachable, ErrThrottled}, "final": {ErrThrottled, ErrDisabled},
	} {
		f, opened, g := &fake{dk: goodKey()}, 0, &notedGate{}
		s := newSet(f, &opened)
		s.SetGate(g)
		if _, err := s.DescribeKey(t.Context(), "fake:k"); err != nil || g.entered != 0 {
			t.Errorf("%s: DescribeKey went through the gate: %v", name, err)
		}
		f.errs = errs
		dk, _ := s.Decrypt(t.Context(), WrappedKey{URI: "fake:k"}, nil)
		dk.Destroy()
		if g.entered != 1 || g.left != 1 {
			t.Errorf("%s: entered %d times, left %d", name, g.entered, g.left)
		}
	}
}

func TestEmbeddedKMSHasNoGate(t *testing.T) {
	f, g := &fake{dk: goodKey()}, &notedGate{}
	s := NewSet(Retry{}, map[string]Opener{SchemeLocal: func(context.Context) (KMS, error) { return f, nil }})
	s.SetGate(g)
	dk, err := s.Decrypt(t.Context(), WrappedKey{URI: "local:k"}, nil)
	dk.Destroy()
	if err != nil || g.entered != 0 {
		t.Errorf("%v, entered %d times", err, g.entered)
	}
}
