package luks

import "errors"

var (
	// ErrNoHeader: neither place where a copy may lie starts like a LUKS header.
	ErrNoHeader = errors.New("no LUKS2 header: this is not an encrypted disk, or its header was erased")
	// ErrDamaged: there was a header, but no copy of it can be used.
	ErrDamaged = errors.New("LUKS2 header is damaged: restore it from a backup of the header")
	// ErrExists: Format found traces of a LUKS header.
	ErrExists = errors.New("a LUKS header is there already: formatting would destroy the key of its data")
	// ErrUnsupported: a valid header that says something we do not serve.
	ErrUnsupported = errors.New("LUKS header is not supported")
	// ErrRequirement: the header forbids use by programs that do not know a feature.
	ErrRequirement = errors.New("LUKS2 header has a mandatory requirement that is not supported: finish the operation with the program that set it")
	// ErrKey: the key cannot be a data key.
	ErrKey = errors.New("data key must be 64 bytes whose halves differ")
	// ErrWrongKey: the key is not the one that the disk was made with.
	ErrWrongKey = errors.New("wrong data key: it does not match the header's digest")
	// ErrDigestPending: the header has no digest yet that could prove a key.
	ErrDigestPending = errors.New("the header's digest is pending: no key can be verified until the disk is first attached")
	// ErrNotPending: the header has its digest.
	ErrNotPending = errors.New("header has its digest already")
	// ErrNoToken: the header has no token of ours.
	ErrNoToken = errors.New("header has no sealblk token: the disk was made by other software, give its key by hand")
	// ErrToken: the token does not parse or contradicts the header.
	ErrToken = errors.New("sealblk token is not valid")
	// ErrTokenVersion: the token was written by a newer release.
	ErrTokenVersion = errors.New("sealblk token has an unknown version: use a newer release")
	// ErrFull: the JSON area cannot hold the new metadata.
	ErrFull = errors.New("header's JSON area is full: remove tokens or key slots that are not needed")
	// ErrInvalid: an argument is malformed.
	ErrInvalid = errors.New("invalid argument")
	// ErrTooShort: the data of the disk does not fit into its file.
	ErrTooShort = errors.New("backing file is too short for the disk: it was cut off, or the header belongs to another file")
	// ErrChanged: the file holds the header of another disk than the one opened.
	ErrChanged = errors.New("header was replaced by another one since it was opened: open it again")
	// ErrNotErased: what was overwritten reads back as something else.
	ErrNotErased = errors.New("header area could not be erased: it does not read back as zeros")
)
