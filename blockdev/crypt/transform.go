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
func (t *transform) Incoming(dst, src []byte, offset int64, next []byte) {
	for at := 0; at < len(src); {
		at += t.cipher.DecryptUntilZero(dst[at:], src[at:], sector(offset+int64(at)), next)
		for ; at < len(src) && binary.NativeEndian.Uint64(src[at:]) == 0; at += t.unit {
			t.beginsWithZeros(dst[at:at+t.unit], src[at:at+t.unit], offset+int64(at))
		}
	}
}

// beginsWithZeros is for a unit that is all zero, nearly always.
func (t *transform) beginsWithZeros(dst, src []byte, offset int64) {
	if bytes.Equal(src, zeros[:len(src)]) {
		clear(dst)
		return
	}
	t.cipher.Decrypt(dst, src, sector(offset))
}

// Interrupted wipes what the cipher may have left of the key when it was cut short by a
// fault in guest memory: in registers, on the stack, and, where the kernel saved the
// registers, on the thread's signal stack.
func (t *transform) Interrupted() error {
	cipher.Scrub()
	return sigmask.Scrub()
}

var zeros [cipher.UnitMax]byte
