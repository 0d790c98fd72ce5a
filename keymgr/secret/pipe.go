package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ReadPipe reads a secret of exactly size bytes from a pipe, socket or file into
// locked memory. It reads nothing beyond them. A deadline on the file holds.
func ReadPipe(f *os.File, size int) (*Buffer, error) {
	b, err := New(size)
	if err != nil {
		return nil, err
	}
	if err := b.fill(f); err != nil {
		b.Destroy()
		return nil, fmt.Errorf("read secret: %w", err)
	}
	return b, nil
}

// WritePipe writes the whole secret to a pipe, socket or file. A deadline on the
// file holds.
func (b *Buffer) WritePipe(f *os.File) error {
	p := b.Bytes()
	if p == nil {
		return fmt.Errorf("write secret: %w", ErrDestroyed)
	}
	conn, err := f.SyscallConn()
	if err == nil {
		err = transfer(conn.Write, unix.Write, p)
	}
	if err != nil {
		return fmt.Errorf("write secret: %w", err)
	}
	return nil
}

func (b *Buffer) fill(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return transfer(conn.Read, unix.Read, b.Bytes())
}

// transfer moves the whole of p by raw system calls: os.File may not be used, its
// readers and writers are free to copy. wait is a RawConn's Read or Write, which
// calls again when the descriptor is ready.
func transfer(wait func(func(fd uintptr) bool) error, call func(int, []byte) (int, error), p []byte) error {
	var failure error
	err := wait(func(fd uintptr) bool {
		for len(p) > 0 {
			n, err := call(int(fd), p)
			switch {
			case errors.Is(err, syscall.EINTR):
				continue
			case errors.Is(err, syscall.EAGAIN):
				return false
			case err != nil:
				failure = err
				return true
			case n == 0:
				failure = io.ErrUnexpectedEOF
				return true
			}
			p = p[n:]
		}
		return true
	})
	if err != nil {
		return err
	}
	return failure
}

// ReadAll reads a pipe, socket or file to its end into locked memory. It fails with
// ErrSize unless there are 1 to limit bytes.
func ReadAll(f *os.File, limit int) (*Buffer, error) {
	all, err := New(limit + 1)
	if err != nil {
		return nil, err
	}
	defer all.Destroy()
	n, err := all.fillToEnd(f)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	if n < 1 || n > limit {
		return nil, fmt.Errorf("read secret of 1 to %d bytes: %w", limit, ErrSize)
	}
	return all.First(n)
}

// fillToEnd reads until the end of the file or of the buffer.
func (b *Buffer) fillToEnd(f *os.File) (n int, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	read := func(fd int, p []byte) (int, error) {
		got, err := unix.Read(fd, p)
		n += max(got, 0)
		return got, err
	}
	if err = transfer(conn.Read, read, b.Bytes()); errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}
