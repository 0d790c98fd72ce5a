package cipher

import "testing"

// TestSoon goes over runs as the kernels do, whose asking nobody sees: what is asked for is the rest of the run, as
// far ahead as it goes, and then the beginning of what comes next.
func TestSoon(t *testing.T) {
	src, other := make([]byte, 5*farAhead), make([]byte, 2*farAhead)
	for _, size := range []int{UnitMin, UnitMax} {
		x, err := NewXTS(testKey(), size)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name   string
			length int
			next   []byte
			want   func(at int) uintptr
		}{
			{"one unit", size, nil, func(at int) uintptr { return address(src) + uintptr(at+nearAhead) }},
			{"one unit, another", size, other, func(at int) uintptr { return address(other) + uintptr(at) }},
			{"short", farAhead, other, func(at int) uintptr { return address(other) + uintptr(at) }},
			{"long", 4 * farAhead, other, func(at int) uintptr {
				if rest := at - 3*farAhead; rest >= 0 {
					return address(other) + uintptr(rest)
				}
				return address(src) + uintptr(at+farAhead)
			}},
			{"long and nothing after", 4 * farAhead, nil, func(at int) uintptr {
				if at >= 3*farAhead {
					return address(src) + uintptr(at)
				}
				return address(src) + uintptr(at+farAhead)
			}},
		} {
			s := x.after(src[:c.length], c.next)
			for at := 0; at < c.length; at += size {
				if s.turn--; s.turn == 0 {
					s.ahead = s.then
				}
				if got, want := address(src[at:])+s.ahead, c.want(at); got != want {
					t.Errorf("units of %d, %s: %d bytes before what should be asked for at %d", size, c.name, int(want-got), at)
				}
			}
		}
	}
}
