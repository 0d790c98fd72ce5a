package memory

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Contains tells whether addr, an address in this process, lies in a mapping.
func (t *Table) Contains(addr uintptr) bool {
	for _, m := range t.mappings() {
		if start := uintptr(unsafe.Pointer(unsafe.SliceData(m.whole))); addr-start < uintptr(len(m.whole)) {
			return true
		}
	}
	return false
}

// Detach replaces what lies behind all mappings by private memory of zeros, in
// place. It is for the case that a file was truncated: accesses to it raise SIGBUS,
// while requests are still on their way. Slices into the mappings stay valid and
// lead nowhere; the mappings are closed as always.
func (t *Table) Detach() error {
	var errs []error
	for _, m := range t.mappings() {
		_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(unsafe.SliceData(m.whole)), uintptr(len(m.whole)),
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|unix.MAP_FIXED)
		if err == nil {
			err = unix.Madvise(m.whole, unix.MADV_DONTDUMP)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
