package workload

import "errors"

var (
	// ErrAbsurd is wrapped when a job is slower with encryption than can be.
	ErrAbsurd = errors.New("encryption costs more than it can")
	// ErrDisagree is wrapped when two front-ends measure different things.
	ErrDisagree = errors.New("the front-ends disagree")

	errNoResult = errors.New("a job without a result")
)
