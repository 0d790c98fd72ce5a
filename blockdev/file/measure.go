package file

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

// measure finds the size of the backend and makes the device's Info of it.
func (b *backing) measure(o Options) error {
	size, physical, err := b.geometry(b.block)
	if err != nil {
		return err
	}
	capacity := o.Size
	if capacity == 0 {
		capacity = (size - o.Offset) &^ (b.unit - 1)
	}
	if capacity <= 0 || capacity > size-o.Offset {
		return fmt.Errorf("%w: it has %d bytes, the device needs %d at offset %d",
			blockdev.ErrShort, size, max(capacity, b.unit), o.Offset)
	}
	b.capacity.Store(capacity)
	b.info = blockdev.Info{
		LogicalBlockSize:  o.LogicalBlockSize,
		PhysicalBlockSize: physicalSize(physical, o.LogicalBlockSize),
		ReadOnly:          o.ReadOnly,
	}
	return nil
}

// physicalSize is what the backend says if it makes sense: file systems name
// preferred sizes (a record, a stripe) that no guest would take for a sector.
func physicalSize(said, logical int) int {
	if said&(said-1) != 0 || said < logical || said > 64<<10 {
		return max(4096, logical)
	}
	return said
}

// geometry is the size in bytes and the block size below.
func (b *backing) geometry(block bool) (size int64, physical int, err error) {
	if block {
		n, err := ioctlUint64(b.fd, unix.BLKGETSIZE64)
		if err != nil {
			return 0, 0, fmt.Errorf("ask size of block device: %w", err)
		}
		physical, err := unix.IoctlGetUint32(b.fd, unix.BLKPBSZGET)
		if err != nil {
			return 0, 0, fmt.Errorf("ask sector size of block device: %w", err)
		}
		return int64(n), int(physical), nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(b.fd, &st); err != nil {
		return 0, 0, fmt.Errorf("ask size of file: %w", err)
	}
	return st.Size, int(st.Blksize), nil
}

// probeFeatures finds out what the backend can do, without changing it.
func (b *backing) probeFeatures() {
	if b.info.ReadOnly {
		return
	}
	if b.block {
		b.punches = b.queueLimit("write_zeroes_max_bytes") > 0
	} else {
		b.punches = b.tryPunch()
	}
	b.info.Features = blockdev.Features{WriteZeroes: true, Discard: b.punches, ZeroesUnmap: b.punches}
}

// tryPunch makes a hole beyond the end of the file, which is no change.
func (b *backing) tryPunch() bool {
	size, _, err := b.geometry(false)
	return err == nil && unix.Fallocate(b.fd, modePunch, (size+pageSize-1)&^(pageSize-1), pageSize) == nil
}

// queueLimit reads a number that the kernel publishes about a block device.
func (b *backing) queueLimit(name string) int64 {
	var st unix.Stat_t
	if unix.Fstat(b.fd, &st) != nil {
		return 0
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	// A partition has the queue of its disk, one level up.
	for _, queue := range []string{"queue", "../queue"} {
		dir, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return 0
		}
		text, err := os.ReadFile(filepath.Join(dir, queue, name))
		if err != nil {
			continue
		}
		n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return n
	}
	return 0
}
