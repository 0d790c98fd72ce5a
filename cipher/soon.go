package cipher

// soon is the memory that will be needed soon, and is asked for while a run is worked on:
// what is ahead bytes beyond the work, and from the turn-th unit on, counted from one,
// what is then bytes beyond it. At turn zero it stays as it is. They are distances modulo
// 2^64 and not pointers: what is there is not looked at, and asking cannot fault. What is
// in the caches takes no notice.
type soon struct {
	ahead, then uintptr
	turn        uint64
}

const (
	// farAhead is how far ahead of the work memory is asked for, in bytes: the cipher
	// takes 300 ns for so many, and two or three times as long where each line is waited
	// for. They are whole units of every size.
	farAhead = UnitMax
	// nearAhead is how far ahead where there is not so much. A processor finds out by
	// itself that bytes are read one after the other, but only after some lines.
	nearAhead = 512
)

// after is what is asked for during src, if next comes after it.
func (x *XTS) after(src, next []byte) soon {
	last := max(0, len(src)-farAhead)
	switch {
	case len(next) == 0 && last == 0:
		return soon{ahead: nearAhead}
	case len(next) == 0:
		return soon{ahead: farAhead, then: 0, turn: uint64(last/x.unitSize) + 1}
	}
	return soon{ahead: farAhead, then: address(next) - address(src[last:]), turn: uint64(last/x.unitSize) + 1}
}
