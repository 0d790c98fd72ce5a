package frontend

import "math/rand/v2"

// Framing cuts the parts of a request (header, data, status) into descriptors: it
// appends them to dst. It is called twice, for what the device reads and for what
// it writes. Any cut is legal (VIRTIO 1.3 clause 2.7.4).
type Framing func(dst, parts []Segment) []Segment

// FrameParts makes one descriptor of each part, as drivers do.
func FrameParts(dst, parts []Segment) []Segment { return append(dst, parts...) }

// FrameMerged makes one descriptor of parts that adjoin in guest memory, as those
// of a request with its own data do.
func FrameMerged(dst, parts []Segment) []Segment {
	for i, p := range parts {
		if last := len(dst) - 1; i > 0 && dst[last].Addr+uint64(dst[last].Len) == p.Addr {
			dst[last].Len += p.Len
			continue
		}
		dst = append(dst, p)
	}
	return dst
}

// FrameAtMost makes descriptors of at most n bytes.
func FrameAtMost(n uint32) Framing {
	return func(dst, parts []Segment) []Segment {
		for _, p := range parts {
			dst = cut(dst, p, func() uint32 { return n })
		}
		return dst
	}
}

// FrameWithEmpty strews descriptors of length 0 among those of f. QEMU's back-ends
// refuse them; the specification does not.
func FrameWithEmpty(rng *rand.Rand, f Framing) Framing {
	return func(dst, parts []Segment) []Segment {
		for _, s := range f(nil, parts) {
			if rng.IntN(3) == 0 {
				dst = append(dst, Segment{Addr: s.Addr})
			}
			dst = append(dst, s)
		}
		return dst
	}
}

// FrameRandom merges what adjoins and cuts it anywhere, into not many more
// descriptors than pieces.
func FrameRandom(rng *rand.Rand, pieces int) Framing {
	return func(dst, parts []Segment) []Segment {
		merged := FrameMerged(nil, parts)
		var total uint32
		for _, p := range merged {
			total += p.Len
		}
		step := max(1, 2*total/uint32(pieces))
		for _, p := range merged {
			dst = cut(dst, p, func() uint32 { return max(step/2, rng.Uint32N(step)+1) })
		}
		return dst
	}
}

func cut(dst []Segment, p Segment, next func() uint32) []Segment {
	for p.Len > 0 {
		n := min(p.Len, next())
		dst = append(dst, Segment{Addr: p.Addr, Len: n})
		p.Addr, p.Len = p.Addr+uint64(n), p.Len-n
	}
	return dst
}
