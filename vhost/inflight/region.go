package inflight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sealblk/vhost/protocol"
)

// seals keep whoever gets the file from changing its size under the others.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// Create makes an empty region: a file for the front-end to keep, with its description
// and a memo. The descriptor is the caller's.
func Create(queues, size int, remember uint16) (d protocol.Inflight, fd int, err error) {
	if !validShape(queues, size) {
		return d, -1, fmt.Errorf("create in-flight region for %d queues of %d: %w", queues, size, ErrShape)
	}
	n := Bytes(queues, size) + memoBytes
	fd, err = unix.MemfdCreate("vhost-inflight", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return d, -1, fmt.Errorf("create in-flight region: %w", err)
	}
	word := binary.NativeEndian.AppendUint64(nil, uint64(newMemo(remember)))
	if _, err = unix.Pwrite(fd, word, int64(n)-memoBytes); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return d, -1, errors.Join(fmt.Errorf("size in-flight region: %w", err), unix.Close(fd))
	}
	return protocol.Inflight{MmapSize: uint64(n), NumQueues: uint16(queues), QueueSize: uint16(size)}, fd, nil
}

// Region is an in-flight region, mapped.
type Region struct {
	fd     int
	queues int
	size   int // of each queue
	mapped []byte
	words  []uint64
	memo   *uint64 // nil for none
	stored func()
}

// Open maps the region that a front-end hands over, and owns fd from the call on.
func Open(d protocol.Inflight, fd int) (*Region, error) {
	r := &Region{fd: fd, queues: int(d.NumQueues), size: int(d.QueueSize)}
	if err := r.open(&d); err != nil {
		return nil, errors.Join(fmt.Errorf("open in-flight region: %w", err), unix.Close(fd))
	}
	return r, nil
}

func (r *Region) open(d *protocol.Inflight) error {
	if !validShape(r.queues, r.size) {
		return fmt.Errorf("%d queues of %d: %w", r.queues, r.size, ErrShape)
	}
	n := Bytes(r.queues, r.size)
	if err := checkFile(r.fd, d, n); err != nil {
		return err
	}
	if d.MmapSize >= uint64(n)+memoBytes {
		n += memoBytes
	}
	var err error
	r.mapped, err = unix.Mmap(r.fd, int64(d.MmapOffset), n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %d bytes: %w", n, err)
	}
	r.words = words(r.mapped)
	r.findMemo()
	for i := range r.queues {
		if _, err := r.header(i); err != nil {
			return errors.Join(err, unix.Munmap(r.mapped))
		}
	}
	return nil
}

// findMemo looks for the word that only regions of ours have.
func (r *Region) findMemo() {
	if at := Bytes(r.queues, r.size) / 8; at < len(r.words) {
		if p := &r.words[at]; memo(atomic.LoadUint64(p)).valid() {
			r.memo = p
		}
	}
}

// Memo is what the device was to remember; not ok for a region that nobody noted it in.
func (r *Region) Memo() (v uint16, ok bool) {
	if r == nil || r.memo == nil {
		return 0, false
	}
	m := memo(atomic.LoadUint64(r.memo))
	return m.value(), m.valid()
}

// SetMemo notes what the device is to remember, if the region has room for it.
func (r *Region) SetMemo(v uint16) {
	if r != nil && r.memo != nil {
		atomic.StoreUint64(r.memo, uint64(newMemo(v)))
	}
}

// checkFile refuses what could not be mapped, or would fault when used.
func checkFile(fd int, d *protocol.Inflight, n int) error {
	if err := errors.Join(sealFile(fd), refuseHuge(fd)); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat file: %w", err)
	}
	end := d.MmapOffset + d.MmapSize
	switch {
	case d.MmapSize < uint64(n):
		return fmt.Errorf("%d bytes for %d: %w", d.MmapSize, n, ErrFile)
	case d.MmapOffset%uint64(os.Getpagesize()) != 0:
		return fmt.Errorf("offset %#x: %w", d.MmapOffset, ErrFile)
	case end < d.MmapOffset, end > uint64(st.Size):
		return fmt.Errorf("%d bytes at %#x in a file of %d: %w", d.MmapSize, d.MmapOffset, st.Size, ErrFile)
	}
	return nil
}

// sealFile keeps the front-end from taking the memory away under us. Only memfds can
// be sealed.
func sealFile(fd int) error {
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err == nil && have&unix.F_SEAL_SHRINK == 0 {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	}
	if err != nil {
		return fmt.Errorf("seal file against shrinking: %w: %w", ErrFile, err)
	}
	return nil
}

// refuseHuge refuses files of huge pages. A hole can be punched in a sealed file; in
// other files it reads as zeros, but for a huge page there may be no memory left, which
// is a fault.
func refuseHuge(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("stat file system: %w", err)
	}
	if fs.Type == unix.HUGETLBFS_MAGIC {
		return fmt.Errorf("file of huge pages: %w", ErrFile)
	}
	return nil
}

// Close unmaps the region and closes its file. A nil region has nothing to close.
func (r *Region) Close() error {
	if r == nil {
		return nil
	}
	err := unix.Munmap(r.mapped)
	r.mapped, r.words, r.memo = nil, nil, nil
	return errors.Join(err, unix.Close(r.fd))
}

// OnStore has f called after each store of the queues that Recover returns from now on,
// and of Recover itself: for tests that let the process die there.
func (r *Region) OnStore(f func()) { r.stored = f }

// FD is the file behind the region, for who hands it on. It stays the region's.
func (r *Region) FD() int { return r.fd }

// Queues is for how many queues there is room.
func (r *Region) Queues() int { return r.queues }

// Served tells whether a back-end has served a queue with this region.
func (r *Region) Served(queue int) bool {
	if r == nil || queue >= r.queues {
		return false
	}
	h, err := r.header(queue)
	return err == nil && h.version() != 0
}

// part is a queue's part of the region.
func (r *Region) part(queue int) []uint64 {
	n := QueueBytes(r.size) / 8
	return r.words[queue*n : (queue+1)*n]
}

// header reads and checks the header of a queue: all zero before its first use.
func (r *Region) header(queue int) (header, error) {
	p := r.part(queue)
	h, features := header(atomic.LoadUint64(&p[headerWord])), atomic.LoadUint64(&p[featuresWord])
	if h.version() == 0 {
		return h, nil
	}
	if h.version() != Version || features != 0 || h.size() != r.size {
		return h, fmt.Errorf("queue %d: version %d, features %#x, %d descriptors: %w", queue, h.version(), features, h.size(), ErrVersion)
	}
	return h, nil
}
