package kmstest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sealblk/keymgr"
)

// patience is for what must end by itself.
const patience = 20 * time.Second

// CheckPipe checks what a KMS does with a pipe in the place of a credential. use makes a
// call that needs it, within a time-out. Nobody writes to the pipe at first, and then
// content is written once, which must do: the error of that call is returned.
func CheckPipe(t *testing.T, content []byte, use func(ctx context.Context, pipe string, timeout time.Duration) error) error {
	t.Helper()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := use(t.Context(), pipe, 50*time.Millisecond); !errors.Is(err, keymgr.ErrUnreachable) || keymgr.IsLoss(err) {
		t.Errorf("nobody writes to the pipe: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	start := func() { go func() { ended <- use(ctx, pipe, time.Hour) }() }
	end := func() error {
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			t.Fatal("the call does not end")
			return nil
		}
	}
	start()
	awaitReader(t, pipe).Close()
	if err := end(); err == nil || errors.Is(err, keymgr.ErrUnreachable) || keymgr.IsLoss(err) {
		t.Errorf("the pipe is closed without a word: %v", err)
	}
	start()
	w := awaitReader(t, pipe) // and somebody who does not write
	cancel()
	if err := end(); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	w.Close()
	ctx = t.Context()
	start()
	w = awaitReader(t, pipe)
	if _, err := w.Write(content); err != nil {
		t.Error(err)
	}
	w.Close()
	return end()
}

// awaitReader waits until somebody reads a pipe, and opens its other end.
func awaitReader(t *testing.T, pipe string) *os.File {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if w, err := os.OpenFile(pipe, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
			return w
		}
	}
	t.Fatal("nobody reads the pipe")
	return nil
}
