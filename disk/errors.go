package disk

import "errors"

var (
	// ErrNotFound: no disk of that name.
	ErrNotFound = errors.New("no such disk")
	// ErrExists: the name, or the backing file, is taken.
	ErrExists = errors.New("already exists")
	// ErrInUse: another process has the disk open.
	ErrInUse = errors.New("disk is in use")
	// ErrInvalid: an argument cannot be right.
	ErrInvalid = errors.New("invalid argument")
	// ErrLocalEncrypted: local (ephemeral) disks cannot be encrypted.
	ErrLocalEncrypted = errors.New("local disks cannot be encrypted")
	// ErrRecord: a record is damaged, or says something that cannot be.
	ErrRecord = errors.New("disk record is damaged")
	// ErrMismatch: record and header do not describe the same disk.
	ErrMismatch = errors.New("record and header disagree")
	// ErrBackend: the backend is not built in, or cannot do what is asked.
	ErrBackend = errors.New("backend cannot be used")
	// ErrNotEncrypted: the operation needs an encrypted disk.
	ErrNotEncrypted = errors.New("disk is not encrypted")
	// ErrNotSelfDescribing: the backing file has no header of ours.
	ErrNotSelfDescribing = errors.New("no sealblk header")
	// ErrTooShort: the backing file is smaller than the disk.
	ErrTooShort = errors.New("backing file is too short")
)

// hinted is an error with advice for the user.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// Hint is what to do about the error.
func (e *hinted) Hint() string { return e.hint }

func withHint(err error, hint string) error { return &hinted{err, hint} }
