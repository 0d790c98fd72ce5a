package crypt

import "errors"

var (
	// ErrNoCipher: a Device was asked for without a cipher.
	ErrNoCipher = errors.New("no cipher")
	// ErrLocked: the cipher was taken away.
	ErrLocked = errors.New("device is locked: its key was wiped")
	// ErrNotUnits: the lower device does not consist of whole data units.
	ErrNotUnits = errors.New("device is not a whole number of data units")
	// ErrPolicy: an option is none of its constants.
	ErrPolicy = errors.New("unknown discard or zeroes policy")
)
