package virtqueue

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"sealblk/internal/leaktest"
	"sealblk/vhost/memory"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// Guest memory of the tests: the rings in one region, buffers in two that follow
// each other, and then nothing.
const (
	ringUser  = 0x7f00_0000_0000
	ringGuest = 0x4000_0000
	ringSize  = 4 << 20
	bufGuest  = 0x1000
	bufSize   = 0x8000 // of each of the two regions
	bufUser   = 0x6f00_0000_0000
)

// testRing is the driver's side, kept plain: the tests place every field by hand.
type testRing struct {
	*Queue
	t     testing.TB
	table *memory.Table
	size  int
	desc  []byte
	avail []byte
	used  []byte
	idx   uint16
}

func newMemory(t testing.TB) *memory.Table {
	t.Helper()
	regions := []memory.Region{
		{GuestAddr: ringGuest, Size: ringSize, UserAddr: ringUser},
		{GuestAddr: bufGuest, Size: bufSize, UserAddr: bufUser},
		{GuestAddr: bufGuest + bufSize, Size: bufSize, UserAddr: bufUser + 1<<30},
	}
	fds := make([]int, len(regions))
	for i, r := range regions {
		fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Ftruncate(fd, int64(r.Size)); err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
	}
	table, err := memory.New(regions, fds)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

func user(t testing.TB, table *memory.Table, addr uint64, n int) []byte {
	t.Helper()
	b, err := table.TranslateUser(addr, uint64(n))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type option func(*Config)

func indirect(c *Config) { c.Indirect = true }
func eventIdx(c *Config) { c.EventIdx = true }
func startAt(idx uint16) option {
	return func(c *Config) {
		c.NextAvail = idx
		binary.LittleEndian.PutUint16(c.Avail[AvailIdxOffset:], idx)
		binary.LittleEndian.PutUint16(c.Used[UsedIdxOffset:], idx)
	}
}

// newTestRing makes a ring whose avail ring lies at 2 modulo 4, the alignment that
// is hardest for 32-bit loads.
func newTestRing(t testing.TB, size int, opts ...option) *testRing {
	return newTestRingIn(t, newMemory(t), size, opts...)
}

func newTestRingIn(t testing.TB, table *memory.Table, size int, opts ...option) *testRing {
	t.Helper()
	r := &testRing{t: t, table: table, size: size}
	r.desc = user(t, table, ringUser, DescTableSize(size))
	r.avail = user(t, table, ringUser+1<<20+2, AvailSize(size))
	r.used = user(t, table, ringUser+2<<20, UsedSize(size))
	cfg := Config{Size: size, Desc: r.desc, Avail: r.avail, Used: r.used}
	for _, o := range opts {
		o(&cfg)
	}
	r.idx = cfg.NextAvail
	q, err := New(cfg, table)
	if err != nil {
		t.Fatal(err)
	}
	r.Queue = q
	return r
}

func (r *testRing) setDesc(i int, d Desc) { d.Put(r.desc[i*DescSize:]) }

// offer puts heads on the avail ring and shows them.
func (r *testRing) offer(heads ...uint16) {
	for _, h := range heads {
		binary.LittleEndian.PutUint16(r.avail[AvailRingOffset+2*(int(r.idx)%r.size):], h)
		r.idx++
	}
	r.setAvailIdx(r.idx)
}

func (r *testRing) setAvailIdx(v uint16) { binary.LittleEndian.PutUint16(r.avail[AvailIdxOffset:], v) }
func (r *testRing) setUsedEvent(v uint16) {
	binary.LittleEndian.PutUint16(r.avail[UsedEventOffset(r.size):], v)
}
func (r *testRing) setAvailFlags(v uint16) { binary.LittleEndian.PutUint16(r.avail, v) }
func (r *testRing) usedFlagsSeen() uint16  { return binary.LittleEndian.Uint16(r.used) }
func (r *testRing) usedIdxSeen() uint16    { return binary.LittleEndian.Uint16(r.used[UsedIdxOffset:]) }
func (r *testRing) availEventSeen() uint16 { return readUint16(r.used, AvailEventOffset(r.size)) }
func (r *testRing) usedElem(i int) (id, n uint32) {
	e := r.used[UsedRingOffset+UsedElemSize*(i%r.size):]
	return binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:])
}

// guestIndirect stores a table at a guest-physical address of the buffers.
func (r *testRing) guestIndirect(addr uint64, descs ...Desc) {
	r.t.Helper()
	raw := make([]byte, DescSize*len(descs))
	for i, d := range descs {
		d.Put(raw[i*DescSize:])
	}
	view := r.table.View()
	pieces, err := view.Translate(addr, uint64(len(raw)), make([][]byte, 0, 2))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range pieces {
		raw = raw[copy(p, raw):]
	}
}

func (r *testRing) mustPop(c *Chain) {
	r.t.Helper()
	if ok, err := r.Pop(c); !ok || err != nil {
		r.t.Fatalf("Pop: %v, %v", ok, err)
	}
}

func lengths(pieces [][]byte) []int {
	n := []int{}
	for _, p := range pieces {
		n = append(n, len(p))
	}
	return n
}
