package keymgr

import (
	"crypto/subtle"
	"fmt"

	"sealblk/keymgr/secret"
)

// CheckDataKey refuses what cannot be a disk's data key: another size, or two equal
// halves, under which XTS is weak (FIPS 140-3 IG C.I).
func CheckDataKey(dk *secret.Buffer) error {
	b := dk.Bytes()
	if len(b) != DataKeySize {
		return fmt.Errorf("check data key of %d bytes, not %d: %w", len(b), DataKeySize, ErrCorrupt)
	}
	if subtle.ConstantTimeCompare(b[:DataKeySize/2], b[DataKeySize/2:]) == 1 {
		return fmt.Errorf("check data key: %w", ErrWeakKey)
	}
	return nil
}
