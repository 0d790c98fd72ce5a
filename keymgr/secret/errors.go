package secret

import "errors"

var (
	// ErrSize: the size of a buffer is not between 1 and MaxSize.
	ErrSize = errors.New("size of a secret is out of range")
	// ErrLimit: the process may not lock more memory.
	ErrLimit = errors.New("limit on locked memory reached")
	// ErrDestroyed: the buffer was destroyed.
	ErrDestroyed = errors.New("secret was destroyed")
)
