// Package filelock locks files: exclusive locks that belong to the open file, so that
// closing it, or the end of the process in whatever way, gives them up. They work
// between processes and between goroutines of one.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocked: another has the lock.
var ErrLocked = errors.New("locked by another")

// Try locks the file at path, which it makes if need be, or returns ErrLocked. Closing
// the file unlocks it. The file is never removed: a lock on a name that has gone would
// keep nobody out.
func Try(path string) (*os.File, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, whole())
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil, ErrLocked
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// Wait is Try that waits for its turn, until ctx is done.
func Wait(ctx context.Context, path string) (*os.File, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	go func() { locked <- wait(f); close(locked) }()
	select {
	case err = <-locked:
	case <-ctx.Done(): // the system call cannot be called off
		go func() {
			for range locked { // late, and of no use to anybody
			}
			_ = f.Close()
		}()
		return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func wait(f *os.File) error {
	for {
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, whole()); err != unix.EINTR {
			return err
		}
	}
}

// Held tells whether somebody has the lock. It asks without taking it, so that looking
// never makes a Try fail.
func Held(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	l := whole()
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, l) == nil && l.Type != unix.F_UNLCK
}

func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return f, nil
}

func whole() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK} }
