package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"sealblk/keymgr/secret"
)

const maxPassphrase = 4096

// passphrase reads a passphrase from a file, which may be a pipe, or from the terminal
// without showing it. twice asks for it again: a new one that was mistyped is lost.
func passphrase(ctx context.Context, file string, prompt io.Writer, twice bool) (*secret.Buffer, error) {
	if file != "" {
		f, err := awaited(ctx, func() (*os.File, error) { return os.Open(file) })
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		defer f.Close()
		return readPassphrase(ctx, f, false)
	}
	p, err := askTerminal(ctx, prompt, "passphrase", twice)
	if errors.Is(err, errNoTerminal) {
		return nil, usagef("there is no terminal to ask for the passphrase: give it by --passphrase-file FILE")
	}
	return p, err
}

var errNoTerminal = errors.New("there is no terminal")

// askTerminal asks the user for a passphrase, whose name what is.
func askTerminal(ctx context.Context, prompt io.Writer, what string, twice bool) (*secret.Buffer, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, errNoTerminal
	}
	defer tty.Close()
	first, err := askPassphrase(ctx, tty, prompt, what+": ")
	if err != nil || !twice {
		return first, err
	}
	again, err := askPassphrase(ctx, tty, prompt, "the same again: ")
	if err != nil {
		first.Destroy()
		return nil, err
	}
	defer again.Destroy()
	if !again.Equal(first) {
		first.Destroy()
		return nil, errors.New("the two passphrases differ: try again")
	}
	return first, nil
}

// askPassphrase turns the terminal's echo off while it reads a line.
func askPassphrase(ctx context.Context, tty *os.File, prompt io.Writer, text string) (*secret.Buffer, error) {
	fd := int(tty.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("ask for passphrase: %w", err)
	}
	silent := *was
	silent.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &silent); err != nil {
		return nil, fmt.Errorf("ask for passphrase: %w", err)
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETSF, was) //nolint:errcheck // nothing better can be done
	fmt.Fprint(prompt, text)
	defer fmt.Fprintln(prompt)
	return readPassphrase(ctx, tty, true)
}

// readPassphrase reads the first line, or all of it, into locked memory. A newline at
// the end does not belong to the passphrase.
func readPassphrase(ctx context.Context, f *os.File, line bool) (*secret.Buffer, error) {
	all, err := secret.New(maxPassphrase + 1)
	if err != nil {
		return nil, err
	}
	defer all.Destroy()
	b, n := all.Bytes(), 0
	for n < len(b) && (!line || n == 0 || b[n-1] != '\n') {
		got, err := readWhenReady(ctx, int(f.Fd()), b[n:])
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		if got == 0 {
			break
		}
		n += got
	}
	if n > 0 && b[n-1] == '\n' {
		n--
	}
	switch {
	case n == 0:
		return nil, errors.New("the passphrase is empty")
	case n > maxPassphrase:
		return nil, fmt.Errorf("the passphrase is longer than %d bytes", maxPassphrase)
	}
	p, err := secret.New(n)
	if err != nil {
		return nil, err
	}
	copy(p.Bytes(), b)
	return p, nil
}

// readWhenReady reads by a raw system call, which copies nothing, but gives up when
// the user does.
func readWhenReady(ctx context.Context, fd int, p []byte) (int, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		if ready <= 0 {
			continue
		}
		if n, err := unix.Read(fd, p); !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
	}
}
