package uring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapRings maps the memory that the kernel shares and points r's fields into it.
// What was mapped when it fails is unmapped by Close.
func (r *Ring) mapRings(p *params) error {
	sqEnd := p.sqOff.array + p.sqEntries*4
	cqEnd := p.cqOff.cqes + p.cqEntries*uint32(unsafe.Sizeof(CQE{}))
	var err error
	if r.rings, err = mapAt(r.fd, offSQRing, int(max(sqEnd, cqEnd))); err != nil {
		return err
	}
	if r.entries, err = mapAt(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(SQE{}))); err != nil {
		return err
	}
	base := unsafe.Pointer(unsafe.SliceData(r.rings))
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Add(base, off)) }
	r.sq = sq{
		head: word(p.sqOff.head), tail: word(p.sqOff.tail), flags: word(p.sqOff.flags),
		mask: p.sqEntries - 1, size: p.sqEntries,
		sqes: unsafe.Slice((*SQE)(unsafe.Pointer(unsafe.SliceData(r.entries))), p.sqEntries),
	}
	r.cq = cq{
		head: word(p.cqOff.head), tail: word(p.cqOff.tail), mask: p.cqEntries - 1,
		cqes: unsafe.Slice((*CQE)(unsafe.Add(base, p.cqOff.cqes)), p.cqEntries),
	}
	// Entry i of the index array always names SQE i: the ring is used in order.
	for i := range unsafe.Slice(word(p.sqOff.array), p.sqEntries) {
		*word(p.sqOff.array + uint32(i)*4) = uint32(i)
	}
	return nil
}

func mapAt(fd int, off int64, size int) ([]byte, error) {
	return unix.Mmap(fd, off, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}
