package luks

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// File is where a header lies: a regular file, a block device, a remote disk.
// [os.File] is one,
// opened without O_DIRECT: buffers are not aligned in memory.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Sync makes every write that returned before it durable.
	Sync() error
}

const (
	// wipeChunk is how much is read at once when an area is cleared.
	wipeChunk = 64 << 10
	// wipeBlock is how much is written: not more than what a file system allocates at
	// least, so that a full one has room for it.
	wipeBlock = 4096
)

// readFull fills b or tells how far the file goes.
func readFull(f io.ReaderAt, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("file ends at byte %d: %w", off+int64(n), io.ErrUnexpectedEOF)
	}
	return err
}

// scan calls visit with each chunk of [from, to) that the file has, and tells where
// the file or the range ends. The buffer is visit's until it returns.
func scan(f io.ReaderAt, from, to int64, visit func(b []byte, off int64) error) (int64, error) {
	buf := make([]byte, wipeChunk)
	for off := from; off < to; {
		n, err := f.ReadAt(buf[:min(wipeChunk, to-off)], off)
		if n == 0 && errors.Is(err, io.EOF) {
			return off, nil
		}
		if n == 0 {
			return off, fmt.Errorf("read header area at byte %d: %w", off, err)
		}
		if err := visit(buf[:n], off); err != nil {
			return off, err
		}
		off += int64(n)
	}
	return to, nil
}

// wipe makes [from, to) read as zeros. It neither grows the file nor fills holes.
// It tells where the file or the range ends.
func wipe(f File, from, to int64) (int64, error) {
	return scan(f, from, to, func(b []byte, off int64) error {
		for block := range slices.Chunk(b, wipeBlock) {
			if err := wipeOne(f, block, off); err != nil {
				return fmt.Errorf("clear header area at byte %d: %w", off, err)
			}
			off += int64(len(block))
		}
		return nil
	})
}

func wipeOne(f File, block []byte, off int64) error {
	if allZero(block) {
		return nil
	}
	clear(block)
	_, err := f.WriteAt(block, off)
	return err
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
