package luks

import (
	"errors"
	"fmt"
	"io"
)

// Erase destroys the header: both copies, and the key slot area with every
// passphrase. Without the header the data can be read only with the wrapped key from
// elsewhere and the KMS; a disk is gone for good when no copy of its header is left
// and its CMK is destroyed. Blocks that a file system or an SSD keeps below (reflinks,
// snapshots, spare cells) are out of reach.
//
// The magic goes last: an interrupted Erase can be run again. Erase does not need a
// good header, but it refuses a file without a trace of one.
func Erase(f File) error {
	there, err := traces(f)
	if err != nil {
		return err
	}
	if !there {
		return ErrNoHeader
	}
	end, err := eraseArea(f, AreaEnd(f))
	if err != nil {
		return err
	}
	return verifyZero(f, end)
}

// AreaEnd is the byte where the key slot area ends, and with it what Erase clears. When the header cannot tell, it is where
// ours end; data that begins before that is lost too, as it is without its header.
func AreaEnd(f io.ReaderAt) int64 {
	h, err := Open(f)
	if err != nil {
		return DataOffset
	}
	return 2*int64(h.bin.hdrSize()) + h.meta.keyslotsSize
}

// eraseArea zeroes [0, end), the block with the magic after all others are durable.
// It tells where the area or the file ends.
func eraseArea(f File, end int64) (int64, error) {
	end, err := wipe(f, binarySize, end)
	if err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, fmt.Errorf("sync header area: %w", err)
	}
	if _, err := wipe(f, 0, binarySize); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, fmt.Errorf("sync header area: %w", err)
	}
	return end, nil
}

func verifyZero(f File, end int64) error {
	_, err := scan(f, 0, end, func(b []byte, off int64) error {
		if !allZero(b) {
			return fmt.Errorf("%w: bytes %d to %d", ErrNotErased, off, off+int64(len(b)))
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrNotErased) {
		return fmt.Errorf("%w: %w", ErrNotErased, err)
	}
	return err
}
