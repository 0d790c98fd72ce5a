package file

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"sealblk/blockdev"
)

// growthRoom is how far, in bytes, a mapping reaches beyond the end of the file. What a
// file has beyond that is read by system calls.
const growthRoom = 64 << 30

// mapping is a file in memory, to read. To read a hole there would make a page for it,
// so only pages that are known to hold something are shown.
type mapping struct {
	fd    int
	bytes []byte
	// known has a bit for each page that holds something.
	known    []atomic.Uint64
	knownMem []byte
}

// isInMemory tells whether a file's data is in memory and nowhere else. A block device's
// is not, though its name may be in a file system that is.
func isInMemory(fd int, block bool) (bool, error) {
	if block {
		return false, nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false, fmt.Errorf("ask for the file system: %w", err)
	}
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC, nil
}

// mapStore maps the file for EngineInline. Without the mapping all goes by system calls.
func (b *backing) mapStore() {
	if b.engine != EngineInline || !b.inMemory {
		return
	}
	m, err := newMapping(b.fd, b.offset+b.capacity.Load()+growthRoom)
	if err != nil {
		b.engineText += " (" + err.Error() + ")"
		return
	}
	b.stored = m
}

func newMapping(fd int, size int64) (*mapping, error) {
	bytes, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map file: %w", err)
	}
	words := int(size/pageSize/64) + 1
	known, err := unix.Mmap(-1, 0, words*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map table of pages: %w", err), unix.Munmap(bytes))
	}
	m := &mapping{fd: fd, bytes: bytes, knownMem: known}
	m.known = unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(known))), words)
	if err := unix.Madvise(bytes, unix.MADV_DONTDUMP); err != nil {
		return nil, errors.Join(fmt.Errorf("keep file out of core dumps: %w", err), m.close())
	}
	return m, nil
}

func (m *mapping) close() error {
	if m == nil {
		return nil
	}
	return errors.Join(unix.Munmap(m.bytes), unix.Munmap(m.knownMem))
}

// view returns a range of the file, or nil if a page of it may be a hole.
func (m *mapping) view(offset, length int64) []byte {
	if length == 0 || offset+length > int64(len(m.bytes)) {
		return nil
	}
	for page := offset / pageSize; page <= (offset+length-1)/pageSize; page++ {
		word, bit := &m.known[page/64], uint64(1)<<(page%64)
		if word.Load()&bit == 0 {
			if !m.holds(page) {
				return nil
			}
			word.Or(bit)
		}
	}
	return m.bytes[offset : offset+length : offset+length]
}

// holds asks the file system whether a page is more than a hole.
func (m *mapping) holds(page int64) bool {
	at, _, errno := unix.RawSyscall(unix.SYS_LSEEK, uintptr(m.fd), uintptr(page*pageSize), unix.SEEK_DATA)
	return errno == 0 && int64(at) == page*pageSize
}

// forget is for a range that may become a hole.
func (m *mapping) forget(offset, length int64) {
	if length == 0 {
		return
	}
	end := min((offset+length-1)/pageSize+1, int64(len(m.known))*64)
	for page := offset / pageSize; page < end; {
		if page%64 == 0 && end-page >= 64 {
			m.known[page/64].Store(0)
			page += 64
			continue
		}
		m.known[page/64].And(^(uint64(1) << (page % 64)))
		page++
	}
}

// mappedQueue is a queue of a file whose bytes can be reached.
type mappedQueue struct {
	*queue
	stored *mapping
}

// View implements blockdev.Viewer, to read.
func (q *mappedQueue) View(op blockdev.Op, offset, length int64) []byte {
	if op != blockdev.Read {
		return nil
	}
	return q.stored.view(q.dev.offset+offset, length)
}

// Viewed implements blockdev.Viewer.
func (q *mappedQueue) Viewed(addr uintptr) bool {
	return addr-uintptr(unsafe.Pointer(unsafe.SliceData(q.stored.bytes))) < uintptr(len(q.stored.bytes))
}

// Submit forgets the pages that may go.
func (q *mappedQueue) Submit(reqs ...*blockdev.Request) {
	q.info.Capacity = q.dev.capacity.Load()
	for _, r := range reqs {
		if (r.Op == blockdev.Discard || r.Op == blockdev.WriteZeroes) && r.Check(&q.info) == nil {
			q.stored.forget(q.dev.offset+r.Offset, r.Length)
		}
	}
	q.queue.Submit(reqs...)
}
