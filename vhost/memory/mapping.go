package memory

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Mapping is a region mapped into this process. It owns the mapping and the file
// descriptor behind it.
type Mapping struct {
	Region
	fd    int
	whole []byte // what mmap returned
	bytes []byte // the region in it
}

// FD is the file behind the region, for who hands the memory on. It stays the
// mapping's.
func (m *Mapping) FD() int { return m.fd }

// Close unmaps the region and closes its file. No slice into it may be in use.
func (m *Mapping) Close() error {
	err := unix.Munmap(m.whole)
	m.whole, m.bytes = nil, nil
	return errors.Join(err, unix.Close(m.fd))
}

// openMapping maps r and takes ownership of fd, also when it fails.
func openMapping(r Region, fd int) (*Mapping, error) {
	m := &Mapping{Region: r, fd: fd}
	if err := m.open(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("map %v: %w", &r, err)
	}
	return m, nil
}

func (m *Mapping) open() error {
	if err := m.check(); err != nil {
		return err
	}
	page, err := m.checkFile()
	if err != nil {
		return err
	}
	// The offset of a mapping is aligned to the file's pages, which may be huge; the
	// region's need not be. The length is rounded up because huge pages can only be
	// unmapped whole.
	start := m.FileOffset &^ (page - 1)
	lead := m.FileOffset - start
	length := (lead + m.Size + page - 1) &^ (page - 1)
	m.whole, err = unix.Mmap(m.fd, int64(start), int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	m.bytes = m.whole[lead : lead+m.Size : lead+m.Size]
	if err := unix.Madvise(m.whole, unix.MADV_DONTDUMP); err != nil {
		return errors.Join(fmt.Errorf("keep out of core dumps: %w", err), unix.Munmap(m.whole))
	}
	return nil
}

// checkFile returns the size of the pages of the file, after a look at its length:
// a mapping beyond it would raise SIGBUS at the first access.
func (m *Mapping) checkFile() (page uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(m.fd, &st); err != nil {
		return 0, fmt.Errorf("stat file: %w", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && uint64(st.Size) < m.FileOffset+m.Size {
		return 0, ErrBeyondFile
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(m.fd, &fs); err != nil {
		return 0, fmt.Errorf("stat file system: %w", err)
	}
	if fs.Type == unix.HUGETLBFS_MAGIC {
		return uint64(fs.Bsize), nil
	}
	return uint64(unix.Getpagesize()), nil
}
