package keymgr

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// Limits of an encryption context.
const (
	MaxContextEntries = 32
	MaxContextBytes   = 8192 // of the canonical encoding
)

// Encode is the canonical encoding of a context, for use as additional
// authenticated data: the number of entries, then, sorted by name, each name and
// value with its length in front; numbers are 32 bits, big-endian. Two contexts have
// the same encoding exactly when they are equal.
func (c Context) Encode() ([]byte, error) {
	if len(c) > MaxContextEntries {
		return nil, fmt.Errorf("encode encryption context of %d entries: %w", len(c), ErrInvalid)
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(len(c)))
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if name == "" || !utf8.ValidString(name) || !utf8.ValidString(c[name]) {
			return nil, fmt.Errorf("encode encryption context entry %q: %w", name, ErrInvalid)
		}
		for _, s := range []string{name, c[name]} {
			if len(s) > MaxContextBytes {
				return nil, fmt.Errorf("encode encryption context: more than %d bytes: %w", MaxContextBytes, ErrInvalid)
			}
			out = binary.BigEndian.AppendUint32(out, uint32(len(s)))
			out = append(out, s...)
		}
	}
	if len(out) > MaxContextBytes {
		return nil, fmt.Errorf("encode encryption context: more than %d bytes: %w", MaxContextBytes, ErrInvalid)
	}
	return out, nil
}
