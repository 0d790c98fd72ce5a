package frontend

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMemoryLayout(t *testing.T) {
	m := newMemory(t,
		RegionLayout{GuestAddr: 0, Size: 8192},
		RegionLayout{GuestAddr: 8192, Size: 4096, File: 1},
		RegionLayout{GuestAddr: 1 << 32, Size: 4096, UserAddr: 0x1000})
	table, fds, err := m.Table()
	if err != nil {
		t.Fatal(err)
	}
	if table.N != 3 || fds[0] != fds[2] || fds[0] == fds[1] {
		t.Fatalf("%d regions in files %v", table.N, fds)
	}
	if r := table.Regions[2]; r.MmapOffset != 8192 || r.UserAddr != 0x1000 || r.GuestAddr != 1<<32 {
		t.Errorf("third region: %+v", r)
	}
	// Across the border of two regions that adjoin, and as the file sees it.
	want := []byte("across the border")
	if err := m.Write(want, 8192-5); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := m.Read(got, 8192-5); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := unix.Pread(fds[1], got[:12], 0); err != nil || !bytes.Equal(got[:12], want[5:]) {
		t.Errorf("the second file has %q, %v", got[:12], err)
	}
	if err := m.Write(want, 12288-5); !errors.Is(err, ErrOutsideMemory) {
		t.Errorf("write beyond the end: %v", err)
	}
}

func TestAlloc(t *testing.T) {
	m := newMemory(t, RegionLayout{Size: 4096}, RegionLayout{GuestAddr: 1 << 20, Size: 8192})
	a, err := m.Alloc(100, 1)
	if err != nil || a.GuestAddr != 0 {
		t.Fatal(a.GuestAddr, err)
	}
	b, err := m.Alloc(100, 256)
	if err != nil || b.GuestAddr != 256 || b.UserAddr != m.Regions[0].UserAddr+256 {
		t.Fatal(b.GuestAddr, err)
	}
	c, err := m.Alloc(5000, 16)
	if err != nil || c.GuestAddr != 1<<20 {
		t.Fatal(c.GuestAddr, err)
	}
	for _, n := range []uint64{1 << 14, 1<<64 - 1} {
		if _, err := m.Alloc(n, 16); !errors.Is(err, ErrNoMemory) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	a.Bytes[0] = 1
	m.Reset()
	if a, err = m.Alloc(1, 1); err != nil || a.Bytes[0] != 0 {
		t.Errorf("after Reset: %v, %v", a.Bytes, err)
	}
}

func TestLayoutIsChecked(t *testing.T) {
	for _, l := range []RegionLayout{{}, {Size: 100}, {Size: 4096, GuestAddr: 1}, {Size: 1 << 20, GuestAddr: 1<<64 - 4096}, {Size: 4096, File: 7}, {Size: 4096, File: -1}} {
		if _, err := NewMemory(l); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
