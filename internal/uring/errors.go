package uring

import "errors"

// ErrUnavailable: this host offers no io_uring, or not enough of it.
var ErrUnavailable = errors.New("io_uring is not available")
