package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"sealblk/blockdev/luks"
	"sealblk/keymgr"
)

// Erasure tells how the key of a deleted disk was destroyed.
type Erasure struct {
	// Bytes of the header that read back as zeros: both copies and the key slot area.
	Bytes int64 `json:"erased_bytes"`
	// Verified says from where they were read: "medium", or "cache" where the file system
	// cannot read past its cache. Empty if there was nothing to destroy.
	Verified string `json:"verified"`
}

const (
	fromMedium = "medium"
	fromCache  = "cache"
)

func (e Erasure) String() string {
	if e.Verified == "" {
		return "its file was not there, nothing was overwritten"
	}
	return fmt.Sprintf("%d bytes of its header were overwritten and read back as zeros from the %s", e.Bytes, e.Verified)
}

// eraseHeader destroys a header and makes sure that it is gone.
func eraseHeader(f *os.File) (Erasure, error) {
	end := luks.AreaEnd(f)
	if err := luks.Erase(f); err != nil {
		return Erasure{}, err
	}
	return readErased(f, end)
}

// readErased reads what was erased, up to a byte or the end of the file, past the page
// cache where that can be done.
func readErased(f *os.File, end int64) (Erasure, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return Erasure{}, err
	}
	end = min(end, size)
	// Clean pages can be dropped, and these have been synced.
	if err := unix.Fadvise(int(f.Fd()), 0, end, unix.FADV_DONTNEED); err != nil {
		return Erasure{}, fmt.Errorf("drop cached header: %w", err)
	}
	e := Erasure{Bytes: end, Verified: fromMedium}
	direct, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil { // this file system has no such thing
		e.Verified = fromCache
		return e, readZeros(f, end)
	}
	defer direct.Close()
	err = readZeros(direct, end)
	if errors.Is(err, unix.EINVAL) {
		e.Verified = fromCache
		err = readZeros(f, end)
	}
	return e, err
}

// readZeros reads into memory that is aligned as direct reads need it.
func readZeros(f *os.File, end int64) error {
	const chunk = 1 << 20
	buf, err := unix.Mmap(-1, 0, chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	defer unix.Munmap(buf) //nolint:errcheck // only a range that is not mapped fails
	for off := int64(0); off < end; {
		n, err := f.ReadAt(buf, off)
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read erased header: %w", err)
		}
		n = int(min(int64(n), end-off))
		if !isZero(buf[:n]) {
			return fmt.Errorf("%w: bytes %d to %d of %s", luks.ErrNotErased, off, off+int64(n), f.Name())
		}
		off += int64(n)
	}
	return nil
}

var zeroPages [64 << 10]byte

// isZero compares many bytes at once: it looks at all of a disk that was never written.
func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeroPages))
		if !bytes.Equal(b[:n], zeroPages[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// recordErasure notes the end of a disk's key: under each CMK that wrapped it.
func (c *Catalogue) recordErasure(ctx context.Context, r Record, e Erasure) error {
	uris := []string{r.KeyURI}
	if r.EscrowKeyURI != "" {
		uris = append(uris, r.EscrowKeyURI)
	}
	for _, uri := range uris {
		if err := c.record(ctx, keymgr.EventErase, r, uri, e.String()); err != nil {
			return err
		}
	}
	return c.did("record erasure", "")
}
