package bench

import "errors"

var (
	// ErrWorkload: a workload that makes no sense, or does not fit the device.
	ErrWorkload = errors.New("invalid workload")
	// ErrMismatch: verification read something else than was written.
	ErrMismatch = errors.New("wrong data")
	// ErrServer: a server could not be started, or ended by itself.
	ErrServer = errors.New("server failed")
	// ErrTarget: there is no such target, or this host lacks what it needs.
	ErrTarget = errors.New("no such target")
	// ErrDirect: a directory that cannot hold files for direct I/O.
	ErrDirect = errors.New("no direct I/O")
)
