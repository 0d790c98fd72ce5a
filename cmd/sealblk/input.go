package main

import (
	"context"
	"io"
)

// awaited is what read gives, unless the user gives up first: a pipe that nobody writes to
// keeps who opens it. What is left waiting then ends with the program.
func awaited[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := read()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// awaitedReader reads a file that may be a pipe, unless the user gives up first.
type awaitedReader struct {
	ctx context.Context
	r   io.Reader
}

// Read reads into memory of its own: a read that is left waiting may still end.
func (a awaitedReader) Read(p []byte) (int, error) {
	own := make([]byte, len(p))
	n, err := awaited(a.ctx, func() (int, error) { return a.r.Read(own) })
	return copy(p, own[:n]), err
}
