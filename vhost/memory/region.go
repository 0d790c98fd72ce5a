package memory

import "fmt"

// Region says where a piece of guest memory lies, in bytes.
type Region struct {
	GuestAddr  uint64 // guest-physical address
	Size       uint64
	UserAddr   uint64 // address in the front-end's process
	FileOffset uint64 // where it starts in its file ("mmap offset")
}

// maxSize bounds offset + size, so that they fit an int and an off_t with room for
// rounding. It is far beyond what a process can map.
const maxSize = 1 << 62

func (r *Region) check() error {
	switch {
	case r.Size == 0:
		return ErrEmpty
	case r.GuestAddr+r.Size-1 < r.GuestAddr, r.UserAddr+r.Size-1 < r.UserAddr:
		return ErrWraps
	case r.Size > maxSize, r.FileOffset > maxSize-r.Size:
		return ErrWraps
	}
	return nil
}

func (r *Region) String() string {
	return fmt.Sprintf("region of %#x bytes at guest address %#x, user address %#x, file offset %#x",
		r.Size, r.GuestAddr, r.UserAddr, r.FileOffset)
}

// overlaps compares last bytes, which unlike ends cannot wrap around.
func (r *Region) overlaps(o *Region) bool {
	return meet(r.GuestAddr, r.Size, o.GuestAddr, o.Size) || meet(r.UserAddr, r.Size, o.UserAddr, o.Size)
}

func meet(a, an, b, bn uint64) bool {
	return a <= b+(bn-1) && b <= a+(an-1)
}

// same tells whether o names the region in REM_MEM_REG, where the offset in the
// file does not count.
func (r *Region) same(o *Region) bool {
	return r.GuestAddr == o.GuestAddr && r.UserAddr == o.UserAddr && r.Size == o.Size
}
