package blk

import "errors"

var (
	// ErrOptions: options that are out of range.
	ErrOptions = errors.New("invalid options of the block device")
	// ErrConfig: a write to the configuration space other than to the write cache
	// field.
	ErrConfig = errors.New("configuration field is not writable")
	// ErrNoStatus: a chain without a writable byte.
	ErrNoStatus = errors.New("request has no room for its status")
)
