package cipher

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const (
	// KeySize is the length of an AES-256-XTS key in bytes: the data key, then the
	// tweak key.
	KeySize = 64
	// SectorSize is the number of bytes that one step of the sector count stands for.
	SectorSize = 512
	// UnitMin and UnitMax are the least and the greatest data unit size in bytes;
	// the powers of two from one to the other are valid.
	UnitMin = 512
	UnitMax = 4096
	// StateSize is the number of bytes that the round keys of an XTS need, whatever
	// the implementation.
	StateSize = 2048
	// StateAlign is the alignment in bytes of the memory for the round keys.
	StateAlign = 64
)

// XTS is AES-256-XTS under one key and one data unit size.
type XTS struct {
	state    *state // nil after Destroy
	unitSize int
	engine   engine
}

// ValidUnitSize reports whether n bytes is a data unit size that this package takes.
func ValidUnitSize(n int) bool {
	return n >= UnitMin && n <= UnitMax && n&(n-1) == 0
}

// NewXTS makes an XTS whose round keys lie in ordinary Go memory. It is for tests
// and tools; what serves a disk uses [NewXTSIn]. The key is not kept.
func NewXTS(key []byte, unitSize int) (*XTS, error) {
	return NewXTSIn(alignedState(), key, unitSize)
}

// NewXTSIn makes an XTS whose round keys lie in mem: at least [StateSize] bytes,
// the first of them aligned to [StateAlign]. The memory belongs to the XTS until
// Destroy. On an error nothing derived from the key is left in it. The key is not
// kept; its 64 bytes are the data key and the tweak key, which must differ.
func NewXTSIn(mem []byte, key []byte, unitSize int) (*XTS, error) {
	if err := selfTest(); err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return newXTS(best(), mem, key, unitSize)
}

func newXTS(e engine, mem []byte, key []byte, unitSize int) (*XTS, error) {
	if err := checkParameters(key, unitSize); err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	s := stateIn(mem)
	if s == nil {
		return nil, fmt.Errorf("make cipher: %w", ErrStateMemory)
	}
	clear(s[:])
	expand(e, s, (*[KeySize]byte)(key))
	return &XTS{state: s, unitSize: unitSize, engine: e}, nil
}

func checkParameters(key []byte, unitSize int) error {
	switch {
	case len(key) != KeySize:
		return ErrKeySize
	case subtle.ConstantTimeCompare(key[:KeySize/2], key[KeySize/2:]) == 1:
		return ErrWeakKey
	case !ValidUnitSize(unitSize):
		return ErrUnitSize
	}
	return nil
}

// UnitSize returns the data unit size in bytes.
func (x *XTS) UnitSize() int { return x.unitSize }

// Encrypt encrypts the data units in src to dst. The first of them begins at the
// given 512-byte sector, whatever its alignment. src is any number of whole data
// units; dst is at least as long and is either src itself or apart from it.
func (x *XTS) Encrypt(dst, src []byte, sector uint64) {
	units := x.check(dst, src)
	if units == 0 {
		return
	}
	encryptUnits(x.engine, x.state, &dst[0], &src[0], units, uint64(x.unitSize), sector, 0, x.after(src, nil))
}

// Decrypt is the inverse of Encrypt, with the same contract.
func (x *XTS) Decrypt(dst, src []byte, sector uint64) {
	units := x.check(dst, src)
	if units == 0 {
		return
	}
	decryptUnits(x.engine, x.state, &dst[0], &src[0], units, uint64(x.unitSize), sector, 0, 1, x.after(src, nil))
}

// ZeroPrefix is the number of bytes at the beginning of a data unit that
// [XTS.DecryptUntilZero] looks at.
const ZeroPrefix = 8

// DecryptUntilZero is Decrypt that ends before the first data unit whose first
// [ZeroPrefix] bytes are zero, and returns the number of bytes that it decrypted. It is
// for stores in which what was never written reads as zeros: to look at each unit before
// takes longer, since the looks wait for memory and the decryption does not.
//
// next is what will be decrypted after src, if that is known: its memory is asked for
// in the meantime. It is not read.
func (x *XTS) DecryptUntilZero(dst, src []byte, sector uint64, next []byte) int {
	units := x.check(dst, src)
	if units == 0 {
		return 0
	}
	left := decryptUnits(x.engine, x.state, &dst[0], &src[0], units, uint64(x.unitSize), sector, 0, 0, x.after(src, next))
	return int(units-left) * x.unitSize
}

// check panics where the contract of Encrypt and Decrypt is broken; it returns the
// number of data units in src.
func (x *XTS) check(dst, src []byte) uint64 {
	switch {
	case x.state == nil:
		panic("cipher: use after Destroy")
	case len(src)&(x.unitSize-1) != 0:
		panic("cipher: input is not whole data units")
	case len(dst) < len(src):
		panic("cipher: output smaller than input")
	case inexactOverlap(dst[:len(src)], src):
		panic("cipher: invalid buffer overlap")
	}
	return uint64(len(src)) / uint64(x.unitSize)
}

// Destroy wipes the round keys and lets go of their memory. A second call does
// nothing; any other use afterwards panics.
func (x *XTS) Destroy() {
	if x.state == nil {
		return
	}
	clear(x.state[:])
	x.state = nil
}

// hidden is all that any kind of printing shows of an XTS.
const hidden = "AES-256-XTS"

// String names the cipher and shows nothing of the key.
func (x *XTS) String() string { return hidden }

// Format prints what String returns, whatever the verb.
func (x *XTS) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue keeps the round keys out of structured logs.
func (x *XTS) LogValue() slog.Value { return slog.StringValue(hidden) }

// Implementations names the implementations that this machine can run, the best
// first. The first is the one in use.
func Implementations() []string {
	var names []string
	for _, e := range engines() {
		names = append(names, e.String())
	}
	return names
}

func best() engine { return engines()[0] }
