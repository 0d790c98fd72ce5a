package cipher

import "errors"

var (
	// ErrKeySize: the key is not KeySize bytes long.
	ErrKeySize = errors.New("key is not 64 bytes long")
	// ErrWeakKey: the two halves of the key are equal (FIPS 140-3 IG C.I).
	ErrWeakKey = errors.New("the two halves of the key are equal")
	// ErrUnitSize: the data unit size is not 512, 1024, 2048 or 4096.
	ErrUnitSize = errors.New("data unit size is not 512, 1024, 2048 or 4096")
	// ErrStateMemory: the memory for the round keys is smaller than StateSize or not
	// aligned to StateAlign.
	ErrStateMemory = errors.New("memory for round keys is too small or misaligned")
	// ErrSelfTest: an implementation does not give the known answers on this machine.
	// No XTS can be made then.
	ErrSelfTest = errors.New("cipher self-test failed")
)
