package attach

import "errors"

var (
	// ErrAttached: the disk is attached already.
	ErrAttached = errors.New("disk is attached already")
	// ErrNotAttached: the disk was not attached by us.
	ErrNotAttached = errors.New("disk is not attached")
	// ErrOtherVM: another VM uses the disk.
	ErrOtherVM = errors.New("another VM uses the disk")
	// ErrBusy: the disk is being attached or detached.
	ErrBusy = errors.New("disk is being attached or detached by another command")
)
