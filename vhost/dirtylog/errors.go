package dirtylog

import "errors"

var (
	// ErrEmpty: a log of no bytes.
	ErrEmpty = errors.New("dirty log is empty")
	// ErrFile: the log's descriptor is not that of a regular file.
	ErrFile = errors.New("dirty log is not a regular file")
	// ErrOutside: a page that the log has no bit for.
	ErrOutside = errors.New("page is outside the dirty log")
)
