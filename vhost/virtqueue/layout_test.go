package virtqueue

import "testing"

func TestLayoutSizes(t *testing.T) {
	// The figures of clause 2.7: 16*n, 6+2*n, 6+8*n.
	for _, n := range []int{1, 2, 128, 1024, MaxSize} {
		if got := DescTableSize(n); got != 16*n {
			t.Errorf("DescTableSize(%d) = %d", n, got)
		}
		if got := AvailSize(n); got != 6+2*n {
			t.Errorf("AvailSize(%d) = %d", n, got)
		}
		if got := UsedSize(n); got != 6+8*n {
			t.Errorf("UsedSize(%d) = %d", n, got)
		}
	}
}

func TestValidSize(t *testing.T) {
	for size, want := range map[int]bool{-4: false, 0: false, 1: true, 2: true, 3: false, 128: true, 32768: true, 65536: false} {
		if got := ValidSize(size); got != want {
			t.Errorf("ValidSize(%d) = %v", size, got)
		}
	}
}

func TestNeedEvent(t *testing.T) {
	for _, c := range []struct {
		event, now, before uint16
		want               bool
	}{
		{0, 1, 0, true},
		{0, 0, 0, false},
		{1, 1, 0, false},
		{5, 9, 5, true},
		{8, 9, 5, true},
		{9, 9, 5, false},
		{4, 9, 5, false},
		{65535, 0, 65535, true},
		{65535, 3, 65530, true},
		{3, 3, 65530, false},
	} {
		if got := NeedEvent(c.event, c.now, c.before); got != c.want {
			t.Errorf("NeedEvent(%d, %d, %d) = %v", c.event, c.now, c.before, got)
		}
	}
}

func TestDescRoundTrip(t *testing.T) {
	want := Desc{Addr: 0x1122334455667788, Len: 0xfffffffe, Flags: DescNext | DescWrite, Next: 0xabcd}
	var b [DescSize]byte
	want.Put(b[:])
	if got := DecodeDesc(&b); got != want {
		t.Errorf("got %+v", got)
	}
	if b[0] != 0x88 || b[12] != 3 || b[15] != 0xab {
		t.Errorf("not little-endian: % x", b)
	}
}
