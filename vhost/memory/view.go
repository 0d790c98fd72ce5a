package memory

// View translates guest-physical addresses for one goroutine.
type View struct {
	regions []*Mapping
	last    int
}

// View starts a view of the table.
func (t *Table) View() View { return View{regions: t.mappings()} }

// Translate appends the n bytes at a guest-physical address to pieces: one piece
// for each region they lie in, in order. It never grows pieces beyond its capacity,
// so that what a guest asks for takes no memory but what the caller set aside; no
// bytes make no piece. After an error the pieces that were appended mean nothing.
func (v *View) Translate(addr, n uint64, pieces [][]byte) ([][]byte, error) {
	for n > 0 {
		i, ok := v.find(addr)
		if !ok {
			return pieces, ErrUnmapped
		}
		if len(pieces) == cap(pieces) {
			return pieces, ErrTooManyPieces
		}
		m := v.regions[i]
		off := addr - m.GuestAddr
		k := min(n, m.Size-off)
		pieces = append(pieces, m.bytes[off:off+k:off+k])
		addr += k
		n -= k
		if n > 0 && addr == 0 {
			return pieces, ErrUnmapped // past the last address there is
		}
	}
	return pieces, nil
}

// find returns the region that holds an address: most often the one of the last
// call.
func (v *View) find(addr uint64) (int, bool) {
	if v.last < len(v.regions) && v.regions[v.last].holds(addr) {
		return v.last, true
	}
	// The last region that starts at or before addr.
	lo, hi := 0, len(v.regions)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if v.regions[mid].GuestAddr <= addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 || !v.regions[lo-1].holds(addr) {
		return 0, false
	}
	v.last = lo - 1
	return v.last, true
}

func (m *Mapping) holds(addr uint64) bool {
	return addr >= m.GuestAddr && addr-m.GuestAddr < m.Size
}
