package keymgr

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// enter takes a place that must be had.
func enter(t *testing.T, g Gate, kms string, limits Retry) Place {
	t.Helper()
	p, err := g.Enter(t.Context(), kms, limits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFileGateBoundsCallers(t *testing.T) {
	g := FileGate{Dir: t.TempDir(), Places: 3}
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			p, err := g.Enter(t.Context(), "vault", PatientRetry)
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
			p.Leave()
		})
	}
	wg.Wait()
	if most.Load() > 3 {
		t.Errorf("%d were inside at once", most.Load())
	}
}

// wantGivenUp checks that a caller gave up at the gate, and says why.
func wantGivenUp(t *testing.T, what string, err error) {
	t.Helper()
	var e *Error
	if !errors.Is(err, ErrUnreachable) || !errors.As(err, &e) || e.Hint == "" {
		t.Errorf("%s: %v", what, err)
	}
}

func TestFileGateIsPatientSoLong(t *testing.T) {
	g := FileGate{Dir: t.TempDir(), Places: 1}
	p := enter(t, g, "vault", Retry{})
	enter(t, g, "aws", Retry{}).Leave() // another KMS's places are others
	_, err := g.Enter(t.Context(), "vault", Retry{Patience: time.Millisecond, Silence: time.Hour})
	wantGivenUp(t, "no place in time", err)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := g.Enter(ctx, "vault", PatientRetry); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	p.Leave()
	enter(t, g, "vault", Retry{}).Leave()
}

func TestFileGateGivesUpASilentKMS(t *testing.T) {
	g := FileGate{Dir: t.TempDir(), Places: 1}
	p := enter(t, g, "vault", Retry{})
	p.Answered(false)
	// It was silent long ago already: that counts from when a caller comes.
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(g.silent("vault"), long, long); err != nil {
		t.Fatal(err)
	}
	if p.Silent() != 0 {
		t.Errorf("who did not wait was silent for %v", p.Silent())
	}
	limits := Retry{Patience: time.Hour, Silence: 10 * time.Millisecond}
	_, err := g.Enter(t.Context(), "vault", limits)
	wantGivenUp(t, "silent", err)
	p.Answered(false)
	p.Answered(true)
	p.Answered(true)
	if _, err := os.Stat(g.silent("vault")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it answers, and is still called silent: %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		q, err := g.Enter(t.Context(), "vault", limits)
		if err != nil {
			t.Errorf("it answers others: %v", err)
			return
		}
		q.Leave()
	}()
	time.Sleep(2 * silenceCheck) // longer than it takes to give up
	p.Leave()
	<-done
}

// TestNoGateWithoutFiles: a gate that cannot be had keeps nobody out.
func TestNoGateWithoutFiles(t *testing.T) {
	p := enter(t, FileGate{Dir: filepath.Join(t.TempDir(), "none")}, "vault", Retry{})
	p.Answered(false)
	p.Leave()
}

// notedGate notes who comes and goes, and what they say.
type notedGate struct {
	entered, left int
	said          []bool
	silent        time.Duration
}

func (g *notedGate) Enter(context.Context, string, Retry) (Place, error) {
	g.entered++
	return g, nil
}
func (g *notedGate) Silent() time.Duration { return g.silent }
func (g *notedGate) Answered(b bool)       { g.said = append(g.said, b) }
func (g *notedGate) Leave()                { g.left++ }

// TestSilenceAtTheGateCounts: who has waited while nobody was answered makes one attempt
// more, and is as patient as ever once there is an answer.
func TestSilenceAtTheGateCounts(t *testing.T) {
	for name, c := range map[string]struct {
		errs  []error
		calls int
	}{
		"still silent": {[]error{ErrUnreachable, ErrUnreachable, ErrUnreachable}, 1},
		"it answers":   {[]error{ErrThrottled, ErrUnreachable, ErrUnreachable, nil}, 4},
	} {
		f, opened := &fake{dk: goodKey(), errs: append([]error{nil}, c.errs...)}, 0
		s := newSet(f, &opened)
		s.SetGate(&notedGate{silent: DefaultRetry.Silence})
		dk, _ := s.Decrypt(t.Context(), WrappedKey{URI: "fake:k"}, nil)
		dk.Destroy()
		if n := len(f.calls) - 1; n != c.calls { // but for open
			t.Errorf("%s: %d calls, want %d: %v", name, n, c.calls, f.calls)
		}
	}
}

func TestCallsKeepTheirPlace(t *testing.T) {
	for name, c := range map[string]struct {
		errs []error
		said []bool
	}{
		"at once":     {nil, []bool{true}},
		"tried again": {[]error{ErrThrottled, ErrUnreachable, ErrThrottled}, []bool{true, false, true, true}},
		"final":       {[]error{ErrUnreachable, ErrDisabled}, []bool{false, true}},
		"not opened":  {[]error{ErrUnreachable}, []bool{false, true}},
	} {
		f, opened, g := &fake{dk: goodKey()}, 0, &notedGate{}
		s := newSet(f, &opened)
		s.SetGate(g)
		f.errs = c.errs
		if name != "not opened" {
			f.errs = append([]error{nil}, c.errs...) // open succeeds
		}
		dk, _ := s.Decrypt(t.Context(), WrappedKey{URI: "fake:k"}, nil)
		dk.Destroy()
		if g.entered != 1 || g.left != 1 || len(g.said) != len(c.said) {
			t.Errorf("%s: entered %d times, left %d, said %v", name, g.entered, g.left, g.said)
			continue
		}
		for i := range c.said {
			if g.said[i] != c.said[i] {
				t.Errorf("%s: said %v, want %v", name, g.said, c.said)
			}
		}
	}
}

func TestOnlyUnwrappingGoesThroughTheGate(t *testing.T) {
	f, opened, g := &fake{dk: goodKey()}, 0, &notedGate{}
	s := newSet(f, &opened)
	s.SetGate(g)
	_, err := s.DescribeKey(t.Context(), "fake:k")
	dk, w, err2 := s.GenerateDataKey(t.Context(), "fake:k", nil)
	dk.Destroy()
	_, err3 := s.ReEncrypt(t.Context(), w, nil, "fake:k")
	if err := errors.Join(err, err2, err3); err != nil || g.entered != 0 {
		t.Errorf("%v, entered %d times", err, g.entered)
	}
}

func TestNoGateWhereThereIsNoService(t *testing.T) {
	f, g := &fake{dk: goodKey()}, &notedGate{}
	s := NewSet(Retry{}, map[string]Opener{SchemeLocal: func(context.Context) (KMS, error) { return f, nil }})
	s.SetGate(g)
	dk, err := s.Decrypt(t.Context(), WrappedKey{URI: "local:k"}, nil)
	dk.Destroy()
	if err != nil || g.entered != 0 {
		t.Errorf("embedded KMS: %v, entered %d times", err, g.entered)
	}
	if _, err := s.Decrypt(t.Context(), WrappedKey{URI: "../../x:k"}, nil); err == nil || g.entered != 0 {
		t.Errorf("no KMS: %v, entered %d times", err, g.entered)
	}
}
