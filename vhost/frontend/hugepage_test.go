package frontend

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Huge pages are a wish: with or without them memory works and is shared.
func TestHugePages(t *testing.T) {
	const size = 4 << 20
	m := newMemory(t, RegionLayout{Size: size, HugePages: true}, RegionLayout{GuestAddr: size, Size: size, File: 1})
	other, err := unix.Mmap(m.Regions[0].FD, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(other)
	if err := m.Write([]byte("both"), size-2); err != nil {
		t.Fatal(err)
	}
	if string(other[size-2:]) != "bo" || string(m.Regions[1].Bytes[:2]) != "th" {
		t.Error("what was written is not there")
	}
	var st unix.Stat_t
	if err := unix.Fstat(m.Regions[0].FD, &st); err != nil || st.Size != size || st.Blocks*512 < size {
		t.Errorf("file of %d bytes, %d allocated, %v: faults are left for the measurement", st.Size, st.Blocks*512, err)
	}
}
