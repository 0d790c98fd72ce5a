package qmp

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestMigrated(t *testing.T) {
	for status, want := range map[string]bool{
		"postmigrate": true, "running": false, "paused": false, "finish-migrate": false, "inmigrate": false, "shutdown": false,
	} {
		q := newFake(t)
		q.status = status
		if got, err := Migrated(patient(t), dial(t, q.path)); err != nil || got != want {
			t.Errorf("%s: %v, %v", status, got, err)
		}
	}
	q := newFake(t)
	q.spoil = func(int, request) fault { return refuse }
	if _, err := Migrated(patient(t), dial(t, q.path)); err == nil {
		t.Error("no error")
	}
}

// TestQuestionsToAMuteQEMU: one that greets, and answers nothing after that, holds up
// nobody for ever.
func TestQuestionsToAMuteQEMU(t *testing.T) {
	defer func(d time.Duration) { questionTimeout = d }(questionTimeout)
	questionTimeout = 20 * time.Millisecond
	m := connect(t, func(p *peer) { io.Copy(io.Discard, p) })
	for name, ask := range map[string]func(ctx context.Context) error{
		"migrated": func(ctx context.Context) error { _, err := Migrated(ctx, m); return err },
		"attached": func(ctx context.Context) error { _, err := Attached(ctx, m, "disk0"); return err },
	} {
		done := make(chan error, 1)
		go func() { done <- ask(t.Context()) }()
		select {
		case err := <-done:
			var advice interface{ Hint() string }
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 20ms") || !errors.As(err, &advice) {
				t.Errorf("%s: %v", name, err)
			}
		case <-patient(t).Done():
			t.Errorf("%s: it waits without end", name)
		}
	}
}
