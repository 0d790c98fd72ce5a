package qmp

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNotConnected is returned by a Monitor that has no connection.
	ErrNotConnected = errors.New("not connected to QEMU")
	// ErrConnectionLost is wrapped when a connection ends while it is needed.
	ErrConnectionLost = errors.New("connection to QEMU lost")
	// ErrProtocol is wrapped when the server sends what QMP does not allow.
	ErrProtocol = errors.New("not the QEMU machine protocol")
	// ErrTooLarge is wrapped when a message is larger than MaxMessage.
	ErrTooLarge = errors.New("message too large")
	// ErrBadOptions is wrapped when the arguments of Attach or Detach make no sense.
	ErrBadOptions = errors.New("bad option")
	// ErrMemoryNotShared is wrapped when a back-end could not map the guest's memory.
	ErrMemoryNotShared = errors.New("guest memory is not shared")
	// ErrNoSlot is wrapped when the machine has no free hot-pluggable PCI slot.
	ErrNoSlot = errors.New("no hot-pluggable slot")
	// ErrInUse is wrapped when the id of the disk is taken.
	ErrInUse = errors.New("id in use")
	// ErrBackend is wrapped when nothing answers on the back-end's socket.
	ErrBackend = errors.New("back-end does not answer")
	// ErrGuestHolds is wrapped when the guest has not let go of the device in time.
	ErrGuestHolds = errors.New("the guest has not released the device")
	// ErrNotRolledBack is wrapped when a failed Attach may have left something in the
	// machine, which Detach removes later.
	ErrNotRolledBack = errors.New("roll back failed")
	// ErrGuestRefused is wrapped when the guest said that it will not release the device.
	ErrGuestRefused = errors.New("the guest refused to release the device")
	// ErrNotDisk is wrapped when the id belongs to another kind of device.
	ErrNotDisk = errors.New("not a vhost-user-blk disk")
)

// Error is QEMU's own answer to a command that failed.
type Error struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *Error) Error() string { return e.Desc }

// refused tells whether QEMU answered the command, with an error: it then did
// not run it. Any other error leaves that open.
func refused(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

func hasClass(err error, class string) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == class
}

// hinted is an error with a way out.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() + "; " + e.hint }
func (e *hinted) Unwrap() error { return e.err }

// Hint says what to do about the error.
func (e *hinted) Hint() string { return e.hint }

// fail makes an error of the given kind with its reason and a hint.
func fail(kind error, hint, format string, args ...any) error {
	return &hinted{
		err:  fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...)),
		hint: hint,
	}
}

// silence is the end of a time that was set here.
type silence struct{ after time.Duration }

func (s silence) Error() string { return fmt.Sprintf("no answer within %v", s.after) }

// Unwrap makes it what the end of any context's time is.
func (silence) Unwrap() error { return context.DeadlineExceeded }

// Hint is for who has no better one.
func (silence) Hint() string {
	return "see that QEMU runs and answers on its QMP socket, then try again"
}

// cause names why a context ended.
func cause(ctx context.Context) error { return context.Cause(ctx) }
