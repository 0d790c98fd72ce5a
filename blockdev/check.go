package blockdev

// Check validates a request against a device: range, alignment, buffers,
// read-only state, features. Layers call it at their entry; it does not allocate.
func (r *Request) Check(info *Info) error {
	switch r.Op {
	case Flush:
		return nil
	case Read, Write:
		if r.Buffered() != r.Length {
			return ErrMisaligned
		}
	case Discard:
		if !info.Features.Discard {
			return ErrNotSupported
		}
	case WriteZeroes:
		if !info.Features.WriteZeroes {
			return ErrNotSupported
		}
	default:
		return ErrNotSupported
	}
	if r.Op != Read && info.ReadOnly {
		return ErrReadOnly
	}
	if r.Offset < 0 || r.Length < 0 || r.Offset > info.Capacity || r.Length > info.Capacity-r.Offset {
		return ErrOutOfRange
	}
	if (r.Offset|r.Length)&int64(info.LogicalBlockSize-1) != 0 {
		return ErrMisaligned
	}
	return nil
}

// Buffered is the number of bytes in the buffers.
func (r *Request) Buffered() int64 {
	var n int64
	for _, b := range r.Buffers {
		n += int64(len(b))
	}
	return n
}
