package crypt

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkIncoming decrypts a disk in memory that is much larger than the caches.
func BenchmarkIncoming(b *testing.B) {
	const size = 1 << 30
	disk, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(disk)
	_ = unix.Madvise(disk, unix.MADV_HUGEPAGE)
	for i := 0; i < size; i += 64 {
		disk[i] = 1
	}
	for _, unit := range []int{512, 4096} {
		for _, run := range []int{4 << 10, 128 << 10} {
			b.Run(fmt.Sprintf("unit=%d/run=%d", unit, run), func(b *testing.B) {
				t := &transform{newCipher(b, unit), unit}
				buffers := make([]byte, 32*run)
				b.SetBytes(int64(run))
				for i, at := 0, 0; b.Loop(); i, at = (i+1)%32, (at+run)%size {
					t.Incoming(buffers[i*run:][:run], disk[at:at+run], int64(at), nil)
				}
			})
		}
	}
}
