package crypt

import (
	"bytes"
	"encoding/binary"

	"sealblk/cipher"
	"sealblk/internal/sigmask"
)

// transform is the cipher as package bounce calls it.
type transform struct {
	cipher *cipher.XTS
	unit   int
}

func sector(offset int64) uint64 { return uint64(offset) / cipher.SectorSize }

// Outgoing encrypts.
func (t *transform) Outgoing(dst, src []byte, offset int64) {
	t.cipher.Encrypt(dst, src, sector(offset))
}

// Incoming decrypts the runs of data units that are not zero, and makes zeros of
// those that are. src is bounce memory, or the stored bytes themselves, which only a
// write to the same unit changes between the look and the decryption: its read may give
// anything that the writer's data and what was there before mix to.
func (t *transform) Incoming(dst, src []byte, offset int64) {
	for at := 0; at < len(src); {
		end := at
		for end < len(src) && !zero(src[end:end+t.unit]) {
			end += t.unit
		}
		if end > at {
			t.cipher.Decrypt(dst[at:end], src[at:end], sector(offset+int64(at)))
		}
		for at = end; at < len(src) && zero(src[at:at+t.unit]); at += t.unit {
			clear(dst[at : at+t.unit])
		}
	}
}

// Interrupted wipes what the cipher may have left of the key when it was cut short by a
// fault in guest memory: in registers, on the stack, and, where the kernel saved the
// registers, on the thread's signal stack.
func (t *transform) Interrupted() error {
	cipher.Scrub()
	return sigmask.Scrub()
}

var zeros [cipher.UnitMax]byte

// zero reports whether a data unit is all zero. The first word tells for nearly
// all that are not.
func zero(unit []byte) bool {
	return binary.NativeEndian.Uint64(unit) == 0 && bytes.Equal(unit, zeros[:len(unit)])
}
