package frontend

import (
	"errors"
	"fmt"
	"math"
	"os"

	"sealblk/vhost/protocol"

	"golang.org/x/sys/unix"
)

// RegionLayout is one region of guest memory.
type RegionLayout struct {
	// GuestAddr and Size, in bytes: multiples of the page size.
	GuestAddr uint64
	Size      uint64
	// File numbers the memfd. Regions with the same number lie in one file, one
	// behind the other, as the two sides of the 4 GiB hole do in QEMU.
	File int
	// UserAddr is what the back-end is told as the front-end's own address. 0 is
	// the true one. Nobody but the back-end's translation uses it.
	UserAddr uint64
	// HugePages asks for huge pages: from the kernel's pool if it has enough, else
	// transparent ones. Without either the pages are small. It is for whole files.
	HugePages bool
}

// Region is a region of guest memory, mapped.
type Region struct {
	protocol.MemoryRegion
	// FD is the memfd; it belongs to the Memory.
	FD int
	// Bytes is the whole region.
	Bytes []byte

	used uint64
}

// Memory is guest memory. It is made once; allocation is for one goroutine, access
// for all.
type Memory struct {
	Regions []Region

	files []int
}

// NewMemory makes guest memory of one or more regions.
func NewMemory(layout ...RegionLayout) (*Memory, error) {
	m := &Memory{}
	if err := m.build(layout); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Memory) build(layout []RegionLayout) error {
	sizes, huge, err := fileSizes(layout)
	if err != nil {
		return err
	}
	for i, size := range sizes {
		if err := m.addFile(size, huge[i]); err != nil {
			return err
		}
	}
	next := make([]uint64, len(sizes))
	for _, l := range layout {
		if err := m.addRegion(l, next[l.File]); err != nil {
			return err
		}
		next[l.File] += l.Size
	}
	return nil
}

// fileSizes checks the layout and adds up what lies in each file, and whether that asks
// for huge pages.
func fileSizes(layout []RegionLayout) (sizes []uint64, huge []bool, err error) {
	page := uint64(os.Getpagesize())
	for _, l := range layout {
		if l.Size == 0 || (l.Size|l.GuestAddr)%page != 0 || l.GuestAddr > math.MaxUint64-l.Size || l.File < 0 || l.File > len(layout) {
			return nil, nil, fmt.Errorf("region of %d bytes at %#x in file %d: %w", l.Size, l.GuestAddr, l.File, ErrConfig)
		}
		for len(sizes) <= l.File {
			sizes, huge = append(sizes, 0), append(huge, false)
		}
		sizes[l.File] += l.Size
		huge[l.File] = huge[l.File] || l.HugePages
	}
	return sizes, huge, nil
}

func (m *Memory) addFile(size uint64, huge bool) error {
	fd, err := -1, error(unix.ENOTSUP)
	if huge {
		fd, err = hugeFile(size)
	}
	if err != nil {
		fd, err = unix.MemfdCreate(memfdName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return fmt.Errorf("create guest memory: %w", err)
	}
	m.files = append(m.files, fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return fmt.Errorf("size guest memory: %w", err)
	}
	return nil
}

const memfdName = "sealblk-guest-memory"

// hugeFile takes pages of 2 MiB out of the kernel's pool.
func hugeFile(size uint64) (int, error) {
	fd, err := unix.MemfdCreate(memfdName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_HUGETLB|unix.MFD_HUGE_2MB)
	if err != nil {
		return -1, err
	}
	if err := unix.Fallocate(fd, 0, 0, int64(size)); err != nil { // the pool has too few
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// collapse makes what pages it can huge. Where the kernel cannot they stay small.
func collapse(b []byte) {
	_ = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	_ = unix.Madvise(b, unix.MADV_COLLAPSE)
}

func (m *Memory) addRegion(l RegionLayout, offset uint64) error {
	fd := m.files[l.File]
	b, err := unix.Mmap(fd, int64(offset), int(l.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map guest memory: %w", err)
	}
	if l.HugePages {
		collapse(b)
	}
	if l.UserAddr == 0 {
		l.UserAddr = addressOf(b)
	}
	m.Regions = append(m.Regions, Region{
		MemoryRegion: protocol.MemoryRegion{GuestAddr: l.GuestAddr, Size: l.Size, UserAddr: l.UserAddr, MmapOffset: offset},
		FD:           fd,
		Bytes:        b,
	})
	return nil
}

// Close unmaps guest memory. A back-end's own mapping lives on.
func (m *Memory) Close() error {
	var errs []error
	for i := range m.Regions {
		errs = append(errs, unix.Munmap(m.Regions[i].Bytes))
	}
	for _, fd := range m.files {
		errs = append(errs, unix.Close(fd))
	}
	m.Regions, m.files = nil, nil
	return errors.Join(errs...)
}

// Table is the payload of SET_MEM_TABLE and its descriptors.
func (m *Memory) Table() (*protocol.MemoryTable, []int, error) {
	t := &protocol.MemoryTable{N: len(m.Regions)}
	if t.N > protocol.MaxTableRegions {
		return nil, nil, fmt.Errorf("%d regions in one table: %w", t.N, ErrConfig)
	}
	fds := make([]int, t.N)
	for i := range m.Regions {
		t.Regions[i], fds[i] = m.Regions[i].MemoryRegion, m.Regions[i].FD
	}
	return t, fds, nil
}

// Alloc takes size bytes, aligned to align (a power of two), out of the first
// region that has them. They are zero. There is no way to give them back but
// Reset.
func (m *Memory) Alloc(size, align uint64) (Block, error) {
	for i := range m.Regions {
		if b, err := m.AllocIn(i, size, align); err == nil {
			return b, nil
		}
	}
	return Block{}, fmt.Errorf("allocate %d bytes: %w", size, ErrNoMemory)
}

// AllocIn is Alloc out of one region.
func (m *Memory) AllocIn(region int, size, align uint64) (Block, error) {
	r := &m.Regions[region]
	start := (r.used + align - 1) &^ (align - 1)
	if start > r.Size || size > r.Size-start {
		return Block{}, fmt.Errorf("allocate %d bytes in region %d: %w", size, region, ErrNoMemory)
	}
	r.used = start + size
	b := Block{Bytes: r.Bytes[start:r.used:r.used], GuestAddr: r.GuestAddr + start, UserAddr: r.UserAddr + start}
	clear(b.Bytes)
	return b, nil
}

// Reset makes all memory free again. Nothing that was allocated may be in use.
func (m *Memory) Reset() {
	for i := range m.Regions {
		m.Regions[i].used = 0
	}
}

// Block is an allocated piece of guest memory.
type Block struct {
	Bytes     []byte
	GuestAddr uint64
	UserAddr  uint64
}

// Part is the piece of n bytes at off within b.
func (b Block) Part(off, n uint64) Block {
	return Block{Bytes: b.Bytes[off : off+n : off+n], GuestAddr: b.GuestAddr + off, UserAddr: b.UserAddr + off}
}

// Segment is b as a descriptor names it.
func (b Block) Segment() Segment { return Segment{Addr: b.GuestAddr, Len: uint32(len(b.Bytes))} }

// At is the guest memory at a guest-physical address, up to the end of its region.
func (m *Memory) At(addr uint64) ([]byte, error) {
	for i := range m.Regions {
		r := &m.Regions[i]
		if off := addr - r.GuestAddr; addr >= r.GuestAddr && off < r.Size {
			return r.Bytes[off:], nil
		}
	}
	return nil, fmt.Errorf("guest address %#x: %w", addr, ErrOutsideMemory)
}

// Read copies guest memory to p, across regions that adjoin.
func (m *Memory) Read(p []byte, addr uint64) error {
	return m.copy(p, addr, func(guest, p []byte) int { return copy(p, guest) })
}

// Write copies p to guest memory, across regions that adjoin.
func (m *Memory) Write(p []byte, addr uint64) error {
	return m.copy(p, addr, func(guest, p []byte) int { return copy(guest, p) })
}

func (m *Memory) copy(p []byte, addr uint64, move func(guest, p []byte) int) error {
	for len(p) > 0 {
		guest, err := m.At(addr)
		if err != nil {
			return err
		}
		n := move(guest, p)
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}
