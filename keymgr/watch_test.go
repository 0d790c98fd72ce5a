package keymgr

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// inState is a fake whose keys are in a state.
type inState struct {
	*fake
	state State
}

func (f inState) DescribeKey(_ context.Context, key string) (KeyInfo, error) {
	return KeyInfo{KeyID: key, State: f.state}, f.answer("describe " + key)
}

// stamped is a fake that can be watched.
type stamped struct {
	*fake
	usable error
}

func (f stamped) Usable(context.Context, string, string) error { return f.usable }
func (f stamped) Stamp(string) string                          { return "seven" }

func setOf(k KMS) *Set {
	return NewSet(DefaultRetry, map[string]Opener{"fake": func(context.Context) (KMS, error) { return k, nil }})
}

// TestUsableByState: a KMS that cannot be watched is asked for the key's state, once.
func TestUsableByState(t *testing.T) {
	for state, want := range map[State]error{
		Enabled: nil, Disabled: ErrDisabled, PendingDeletion: ErrPendingDeletion, PendingImport: ErrPendingImport, "Molten": ErrNotWatchable,
	} {
		f := &fake{}
		s := setOf(inState{f, state})
		if err := s.Usable(t.Context(), "fake:k", ""); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", state, err, want)
		}
		if IsLoss(want) != (want != nil && state != "Molten") {
			t.Errorf("%s: counts as a loss: %v", state, IsLoss(want))
		}
		if len(f.calls) != 1 || s.Stamp("fake:k") != "" {
			t.Errorf("%s: calls %v, stamp %q", state, f.calls, s.Stamp("fake:k"))
		}
	}
}

// TestUsableErrors: a KMS that does not answer is asked once and says nothing of the key;
// one that does not let the caller see the key neither.
func TestUsableErrors(t *testing.T) {
	for _, c := range []struct {
		answer, want error
		loss         bool
	}{
		{ErrUnreachable, ErrUnreachable, false},
		{ErrThrottled, ErrThrottled, false},
		{ErrCorrupt, ErrCorrupt, false},
		{ErrNotFound, ErrNotFound, true},
		{ErrAccessDenied, ErrNotWatchable, true},
		{ErrCredentials, ErrAccessDenied, false},
		{fmt.Errorf("describe: %w", errors.ErrUnsupported), ErrNotWatchable, false},
	} {
		f := &fake{errs: []error{c.answer}}
		err := setOf(f).Usable(t.Context(), "fake:k", "")
		if !errors.Is(err, c.want) || !errors.Is(err, c.answer) || IsLoss(err) != c.loss || len(f.calls) != 1 {
			t.Errorf("%v: %v, calls %v, loss %v", c.answer, err, f.calls, IsLoss(err))
		}
	}
	if err := setOf(&fake{}).Usable(t.Context(), "other:k", ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown KMS: %v", err)
	}
}

// TestUsableWatchable: a KMS that can be watched is not asked to describe.
func TestUsableWatchable(t *testing.T) {
	f := stamped{&fake{}, ErrDisabled}
	s := setOf(f)
	if got := s.Stamp("fake:k"); got != "" {
		t.Errorf("a KMS that was not used has stamp %q", got)
	}
	if err := s.Usable(t.Context(), "fake:k", ""); !errors.Is(err, ErrDisabled) {
		t.Error(err)
	}
	if got := s.Stamp("fake:k"); got != "seven" || len(f.calls) != 0 {
		t.Errorf("stamp %q, calls %v", got, f.calls)
	}
}

// versioned is a fake of which one version of a key unwraps.
type versioned struct {
	*fake
	good string
}

func (f versioned) CheckVersion(_ context.Context, _, version string) error {
	if version != f.good {
		return ErrDisabled
	}
	return f.answer("check " + version)
}

// TestUsableByVersion: a KMS that can tell is asked for the version, if that is known.
func TestUsableByVersion(t *testing.T) {
	f := &fake{}
	s := setOf(versioned{f, "2"})
	if err := s.Usable(t.Context(), "fake:k", "1"); !errors.Is(err, ErrDisabled) || !IsLoss(err) {
		t.Errorf("version 1: %v", err)
	}
	if err := s.Usable(t.Context(), "fake:k", "2"); err != nil || len(f.calls) != 1 || f.calls[0] != "check 2" {
		t.Errorf("version 2: %v, calls %v", err, f.calls)
	}
	f.errs = []error{ErrAccessDenied}
	if err := s.Usable(t.Context(), "fake:k", "2"); !errors.Is(err, ErrNotWatchable) {
		t.Errorf("without permission: %v", err)
	}
	f.errs = []error{ErrUnreachable}
	if err := s.Usable(t.Context(), "fake:k", ""); !errors.Is(err, ErrUnreachable) || f.calls[2] != "describe k" {
		t.Errorf("version unknown: %v, calls %v", err, f.calls)
	}
}
