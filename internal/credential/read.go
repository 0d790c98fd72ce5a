package credential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrSilent: the credential is a pipe, and what was to come from it did not in time.
var ErrSilent = errors.New("nobody has written it to the pipe in time")

// past is a deadline that is over.
var past = time.Unix(1, 0)

// IsPipe tells whether a credential is a pipe, which gives away what it holds once.
func IsPipe(name string) bool {
	path, err := Path(name)
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeNamedPipe != 0
}

// Use calls read with the open file of a credential. A pipe may take the place of a file:
// it is waited for until somebody has written to it or closed it, or until ctx ends, which
// ends calls of f too. Nothing is left waiting then, neither a thread nor a descriptor.
func Use(ctx context.Context, name string, read func(f *os.File) error) error {
	path, err := Path(name)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return ended(path, err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // without it the open itself waits
	if err != nil {
		return fmt.Errorf("read credential: %w", err)
	}
	defer f.Close()
	// A file has no deadlines, and needs none.
	defer context.AfterFunc(ctx, func() { f.SetReadDeadline(past) })() //nolint:errcheck // see above
	if err = await(f); err == nil {
		err = read(f)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ended(path, ctx.Err())
	case err != nil:
		return fmt.Errorf("credential %s: %w", path, err)
	}
	return nil
}

func ended(path string, why error) error {
	if errors.Is(why, context.DeadlineExceeded) {
		why = ErrSilent
	}
	return fmt.Errorf("read credential %s: %w", path, why)
}

// await waits until there is something to read, or the end: a pipe that nobody has opened
// to write to reads as if it were at its end.
func await(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = conn.Read(func(fd uintptr) bool {
		var ready int
		for failure = unix.EINTR; errors.Is(failure, unix.EINTR); {
			ready, failure = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		}
		return ready > 0 || failure != nil
	})
	return errors.Join(err, failure)
}

// Read is the content of a credential, of which no copies are left behind. See [Use].
func Read(ctx context.Context, name string) ([]byte, error) {
	data, n := make([]byte, maxSize+1), 0
	err := Use(ctx, name, func(f *os.File) (err error) {
		n, err = io.ReadFull(f, data)
		switch {
		case err == nil:
			return fmt.Errorf("it has more than %d bytes", maxSize)
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		}
		return err
	})
	if err != nil {
		clear(data)
		return nil, err
	}
	return data[:n], nil
}
