package memory

import "unsafe"

// Contains tells whether addr, an address in this process, lies in a mapping: whose
// fault a fault is.
func (t *Table) Contains(addr uintptr) bool {
	for _, m := range t.mappings() {
		if start := uintptr(unsafe.Pointer(unsafe.SliceData(m.whole))); addr-start < uintptr(len(m.whole)) {
			return true
		}
	}
	return false
}
