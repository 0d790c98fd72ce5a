package filelock

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestOneAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if Held(path) {
		t.Fatal("held before it is there")
	}
	for range 2 {
		f, err := Try(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Try(path); !errors.Is(err, ErrLocked) {
			t.Fatalf("second: %v; want ErrLocked", err)
		}
		if !Held(path) {
			t.Fatal("nobody seems to have it")
		}
		f.Close()
		if Held(path) {
			t.Fatal("held after it was given up")
		}
	}
}

func TestWaitsForItsTurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	turn := make(chan error)
	go func() {
		f, err := Wait(t.Context(), path)
		if err == nil {
			f.Close()
		}
		turn <- err
	}()
	select {
	case <-turn:
		t.Fatal("two have the lock")
	default:
	}
	first.Close()
	if err := <-turn; err != nil {
		t.Fatal(err)
	}
}

// TestWaitCanBeCalledOff: and who called it off does not have the lock later.
func TestWaitCanBeCalledOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Wait(ctx, path); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	first.Close()
	f, err := Wait(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestNoPlaceForALock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "lock")
	if _, err := Try(path); err == nil || errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	if _, err := Wait(t.Context(), path); err == nil {
		t.Fatal("locked nothing")
	}
}
