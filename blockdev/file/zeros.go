package file

import (
	"sync"

	"golang.org/x/sys/unix"
)

const (
	zerosSize = 1 << 20
	// zerosIovecs is how often one write names the zeros.
	zerosIovecs = 16
)

// zeros is memory to write zeros from: aligned, read-only, and backed by the
// system's one zero page. It is mapped once and for the life of the process.
var zeros = sync.OnceValues(func() ([]byte, error) {
	return unix.Mmap(-1, 0, zerosSize, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
})

// fillZeros appends n zero bytes to iov, or as many as one write shall have.
func fillZeros(iov []unix.Iovec, mem []byte, n int64) []unix.Iovec {
	for n > 0 && len(iov) < zerosIovecs {
		part := mem[:min(n, zerosSize)]
		iov = append(iov, iovec(part))
		n -= int64(len(part))
	}
	return iov
}
