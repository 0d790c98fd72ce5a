package inflight

import "errors"

var (
	// ErrShape: a number of queues or a queue size that no region has.
	ErrShape = errors.New("in-flight region cannot have this shape")
	// ErrFile: the file is too short, misplaced or no shared memory.
	ErrFile = errors.New("file cannot hold the in-flight region")
	// ErrVersion: a version, a feature or a queue size that is not ours.
	ErrVersion = errors.New("in-flight region is of another kind")
	// ErrContent: the region contradicts itself or the ring.
	ErrContent = errors.New("in-flight region makes no sense")
)
