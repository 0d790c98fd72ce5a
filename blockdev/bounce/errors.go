package bounce

import "errors"

var (
	// ErrConfig: a size in the configuration is not one that can work, or the
	// lower device does not consist of whole units.
	ErrConfig = errors.New("invalid bounce configuration")
	// ErrDepth: the submitter has more requests in flight than it announced.
	ErrDepth = errors.New("more requests in flight than the depth of the queue")
)
