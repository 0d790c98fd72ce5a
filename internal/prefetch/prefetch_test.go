package prefetch

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Nothing happens to memory that cannot be touched, and none is needed.
func TestNothingFaults(t *testing.T) {
	mem, err := unix.Mmap(-1, 0, 8192, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	for _, b := range [][]byte{nil, mem[:0], mem[:1], mem, mem[8191:]} {
		Read(b)
		Line(b)
		Write(b)
	}
}
