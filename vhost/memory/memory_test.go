package memory

import (
	"bytes"
	"errors"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const page = 4096

func memfd(t testing.TB, size int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return fd
}

func mustNew(t *testing.T, regions ...Region) *Table {
	t.Helper()
	fds := make([]int, len(regions))
	for i, r := range regions {
		fds[i] = memfd(t, int64(r.FileOffset+r.Size))
	}
	table, err := New(regions, fds)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

func TestRefusedRegions(t *testing.T) {
	ok := Region{GuestAddr: 0x10000, Size: 2 * page, UserAddr: 0x7f0000000000}
	for _, c := range []struct {
		name string
		r    Region
		file int64
		want error
	}{
		{"empty", Region{GuestAddr: 1 << 40, UserAddr: 1 << 40}, page, ErrEmpty},
		{"guest address wraps", Region{GuestAddr: 1<<64 - page, Size: 2 * page, UserAddr: 1 << 40}, 2 * page, ErrWraps},
		{"user address wraps", Region{GuestAddr: 1 << 40, Size: 2 * page, UserAddr: 1<<64 - page}, 2 * page, ErrWraps},
		{"offset plus size wraps", Region{GuestAddr: 1 << 40, Size: page, UserAddr: 1 << 40, FileOffset: 1<<64 - page}, page, ErrWraps},
		{"offset plus size beyond int64", Region{GuestAddr: 1 << 40, Size: 1 << 62, UserAddr: 1 << 40, FileOffset: 1 << 62}, page, ErrWraps},
		{"same again", ok, 2 * page, ErrOverlap},
		{"guest overlap by one byte", Region{GuestAddr: 0x10000 + 2*page - 1, Size: page, UserAddr: 1 << 40}, page, ErrOverlap},
		{"user overlap by one byte", Region{GuestAddr: 1 << 40, Size: page, UserAddr: 0x7f0000000000 - page + 1}, page, ErrOverlap},
		{"encloses another", Region{GuestAddr: 0, Size: 1 << 30, UserAddr: 1 << 40}, 1 << 30, ErrOverlap},
		{"beyond the file", Region{GuestAddr: 1 << 40, Size: 2 * page, UserAddr: 1 << 40}, 2*page - 1, ErrBeyondFile},
		{"offset beyond the file", Region{GuestAddr: 1 << 40, Size: page, UserAddr: 1 << 40, FileOffset: page}, page, ErrBeyondFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := mustNew(t, ok)
			fd := memfd(t, c.file)
			if _, err := table.With(c.r, fd); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if err := unix.Fstat(fd, &unix.Stat_t{}); err != unix.EBADF {
				t.Errorf("the descriptor of a refused region is open: %v", err)
			}
		})
	}
}

func TestNewClosesEverythingOnError(t *testing.T) {
	regions := []Region{
		{GuestAddr: 0, Size: page, UserAddr: 1 << 40},
		{GuestAddr: 0, Size: page, UserAddr: 2 << 40},
		{GuestAddr: 1 << 30, Size: page, UserAddr: 3 << 40},
	}
	fds := []int{memfd(t, page), memfd(t, page), memfd(t, page)}
	if _, err := New(regions, fds); !errors.Is(err, ErrOverlap) {
		t.Fatalf("error %v", err)
	}
	if _, err := New(regions, []int{memfd(t, page)}); !errors.Is(err, ErrFileCount) {
		t.Fatalf("error %v", err)
	}
	// leaktest finds what is left open.
}

func TestReadOnlyFileRefused(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(page); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(f.Name(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New([]Region{{Size: page}}, []int{fd}); !errors.Is(err, unix.EACCES) {
		t.Fatalf("error %v", err)
	}
}

func TestUnalignedOffsetReachesTheRightBytes(t *testing.T) {
	fd := memfd(t, 4*page)
	if _, err := unix.Pwrite(fd, []byte("hello"), page+100); err != nil {
		t.Fatal(err)
	}
	table, err := New([]Region{{GuestAddr: 0x1000, Size: 2 * page, UserAddr: 0x5000, FileOffset: page + 100}}, []int{fd})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	b, err := table.TranslateUser(0x5000, 5)
	if err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
	view := table.View()
	pieces, err := view.Translate(0x1001, 4, make([][]byte, 0, 1))
	if err != nil || string(pieces[0]) != "ello" {
		t.Fatalf("%q, %v", pieces, err)
	}
	pieces[0][0] = 'E'
	var back [5]byte
	if _, err := unix.Pread(fd, back[:], page+100); err != nil || string(back[:]) != "hEllo" {
		t.Fatalf("file holds %q, %v", back, err)
	}
}

func TestHugePages(t *testing.T) {
	const huge = 2 << 20
	fd, err := unix.MemfdCreate("huge", unix.MFD_CLOEXEC|unix.MFD_HUGETLB)
	if err != nil {
		leaktest.Missing(t, "huge page memfds: "+err.Error())
	}
	if err := unix.Ftruncate(fd, 2*huge); err != nil {
		t.Fatal(err)
	}
	// Neither the offset nor the size is a multiple of the page size.
	table, err := New([]Region{{GuestAddr: 0, Size: page, UserAddr: 1 << 40, FileOffset: huge + page}}, []int{fd})
	if errors.Is(err, unix.ENOMEM) {
		leaktest.Missing(t, "free huge pages")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Close(); err != nil {
		t.Fatalf("unmap: %v", err)
	}
}

func TestTranslateSpansAdjacentRegions(t *testing.T) {
	table := mustNew(t,
		Region{GuestAddr: 0x10000 + 2*page, Size: page, UserAddr: 0x100000},
		Region{GuestAddr: 0x10000, Size: page, UserAddr: 0x300000},
		Region{GuestAddr: 0x10000 + page, Size: page, UserAddr: 0x200000},
		Region{GuestAddr: 0x10000 + 4*page, Size: page, UserAddr: 0x400000},
	)
	view := table.View()
	pieces, err := view.Translate(0x10000+page-1, page+2, make([][]byte, 0, 4))
	if err != nil {
		t.Fatal(err)
	}
	if got := lengths(pieces); !slices.Equal(got, []int{1, page, 1}) {
		t.Fatalf("pieces %v", got)
	}
	first, _ := table.TranslateUser(0x300000+page-1, 1)
	pieces[0][0] = 7
	if first[0] != 7 {
		t.Fatal("the first piece is not the last byte of the first region")
	}
	for _, c := range []struct{ addr, n uint64 }{
		{0x10000 + 3*page, 1},          // a hole
		{0x10000 + 2*page, page + 1},   // into the hole
		{0x10000 + 4*page, page + 1},   // beyond the last
		{0xffff, 1},                    // before the first
		{0x10000, 1 << 63},             // absurd
		{0x10000, 1<<64 - 1},           // wraps
		{1<<64 - 1, 2},                 // wraps
		{0x10000 + 5*page - 1, 2},      // across the end
		{0x10000 + 3*page - 1, 2},      // across the end, into the hole
		{0x10000 + 4*page - 1, 1 << 8}, // from the hole
	} {
		if _, err := view.Translate(c.addr, c.n, make([][]byte, 0, 8)); !errors.Is(err, ErrUnmapped) {
			t.Errorf("Translate(%#x, %#x): %v", c.addr, c.n, err)
		}
	}
}

func TestTranslateAtTheEndOfTheAddressSpace(t *testing.T) {
	top := uint64(1<<64 - page)
	table := mustNew(t,
		Region{GuestAddr: top, Size: page, UserAddr: top},
		Region{GuestAddr: 0, Size: page, UserAddr: 0},
	)
	view := table.View()
	if pieces, err := view.Translate(top, page, make([][]byte, 0, 2)); err != nil || len(pieces) != 1 {
		t.Fatalf("%v, %v", lengths(pieces), err)
	}
	if _, err := view.Translate(top, page+1, make([][]byte, 0, 2)); !errors.Is(err, ErrUnmapped) {
		t.Fatalf("a buffer that wraps to address 0: %v", err)
	}
	if _, err := table.TranslateUser(top+1, page); !errors.Is(err, ErrUnmapped) {
		t.Fatalf("a ring that wraps to address 0: %v", err)
	}
}

func TestTranslateIsBoundedByTheCapacity(t *testing.T) {
	table := mustNew(t,
		Region{GuestAddr: 0, Size: page, UserAddr: 0},
		Region{GuestAddr: page, Size: page, UserAddr: page},
	)
	view := table.View()
	if _, err := view.Translate(0, 2*page, make([][]byte, 0, 1)); !errors.Is(err, ErrTooManyPieces) {
		t.Fatalf("error %v", err)
	}
	pieces, err := view.Translate(0, 0, nil)
	if err != nil || len(pieces) != 0 {
		t.Fatalf("no bytes: %v, %v", pieces, err)
	}
	room := make([][]byte, 0, 2)
	if n := testing.AllocsPerRun(100, func() { view.Translate(1, 2*page-1, room) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestTranslateUser(t *testing.T) {
	table := mustNew(t,
		Region{GuestAddr: 0, Size: page, UserAddr: 0x7000},
		Region{GuestAddr: page, Size: page, UserAddr: 0x8000},
	)
	for _, c := range []struct {
		addr, n uint64
		ok      bool
	}{
		{0x7000, page, true},
		{0x8000, page, true},
		{0x7fff, 1, true},
		{0x7fff, 2, false}, // a ring may not span regions
		{0x6fff, 1, false},
		{0x9000, 1, false},
		{0x8000, page + 1, false},
		{0x8001, 1<<64 - 1, false},
		{0, 1, false}, // a guest-physical address is no user address
	} {
		b, err := table.TranslateUser(c.addr, c.n)
		if (err == nil) != c.ok {
			t.Errorf("TranslateUser(%#x, %#x): %v", c.addr, c.n, err)
		}
		if err == nil && (uint64(len(b)) != c.n || uint64(cap(b)) != c.n) {
			t.Errorf("TranslateUser(%#x, %#x): len %d, cap %d", c.addr, c.n, len(b), cap(b))
		}
	}
	if _, err := (*Table)(nil).TranslateUser(0, 0); !errors.Is(err, ErrUnmapped) {
		t.Errorf("empty table: %v", err)
	}
}

func TestRemoveKeepsTheOthersAndTheOldTable(t *testing.T) {
	a := Region{GuestAddr: 0, Size: page, UserAddr: 1 << 32}
	b := Region{GuestAddr: page, Size: page, UserAddr: 2 << 32, FileOffset: 512}
	old, err := New([]Region{a, b}, []int{memfd(t, page), memfd(t, page+512)})
	if err != nil {
		t.Fatal(err)
	}
	b.FileOffset = 0 // does not count
	table, gone, err := old.Without(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := table.Without(b); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	for _, wrong := range []Region{
		{GuestAddr: 0, Size: page - 1, UserAddr: 1 << 32},
		{GuestAddr: 0, Size: page, UserAddr: 1},
		{GuestAddr: 1, Size: page, UserAddr: 1 << 32},
	} {
		if _, _, err := table.Without(wrong); !errors.Is(err, ErrNotFound) {
			t.Errorf("removed %v: %v", &wrong, err)
		}
	}
	view := table.View()
	if _, err := view.Translate(page, 1, make([][]byte, 0, 1)); !errors.Is(err, ErrUnmapped) {
		t.Errorf("the removed region translates: %v", err)
	}
	before := old.View()
	pieces, err := before.Translate(page, 1, make([][]byte, 0, 1))
	if err != nil {
		t.Fatalf("the old table lost a region: %v", err)
	}
	pieces[0][0] = 1 // still mapped
	if err := errors.Join(gone.Close(), table.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestSlots(t *testing.T) {
	table := &Table{}
	fd := memfd(t, page)
	defer unix.Close(fd)
	add := func(i uint64) error {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		next, err := table.With(Region{GuestAddr: i * page, Size: page, UserAddr: (1000 - i) * page}, dup)
		if err == nil {
			table = next
		}
		return err
	}
	for i := range uint64(MaxRegions) {
		if err := add(i); err != nil {
			t.Fatalf("region %d: %v", i, err)
		}
	}
	defer func() { table.Close() }()
	if err := add(MaxRegions); !errors.Is(err, ErrTooMany) {
		t.Fatalf("region %d: %v", MaxRegions, err)
	}
	view := table.View()
	pieces, err := view.Translate(0, MaxRegions*page, make([][]byte, 0, MaxRegions))
	if err != nil || len(pieces) != MaxRegions {
		t.Fatalf("%d pieces, %v", len(pieces), err)
	}
}

func TestGuestMemoryIsLeftOutOfCoreDumps(t *testing.T) {
	mustNew(t, Region{Size: 3 * page, UserAddr: 1 << 32})
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(smaps), "/memfd:guest")
	if !ok {
		t.Fatal("no mapping of the memfd")
	}
	_, flags, _ := strings.Cut(rest, "VmFlags:")
	flags, _, _ = strings.Cut(flags, "\n")
	if !slices.Contains(strings.Fields(flags), "dd") {
		t.Fatalf("flags %s", flags)
	}
}

// TestTranslateModel compares Translate with a byte by byte look-up.
func TestTranslateModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, model := &Table{}, map[uint64]*Region{}
		for range rapid.IntRange(0, 6).Draw(t, "regions") {
			r := Region{
				GuestAddr: rapid.Uint64Range(0, 60).Draw(t, "guest"),
				Size:      rapid.Uint64Range(1, 16).Draw(t, "size"),
				UserAddr:  rapid.Uint64Range(0, 1<<20).Draw(t, "user"),
			}
			fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Ftruncate(fd, int64(r.Size)); err != nil {
				t.Fatal(err)
			}
			if next, err := table.With(r, fd); err == nil {
				table = next
				for a := r.GuestAddr; a < r.GuestAddr+r.Size; a++ {
					model[a] = &r
				}
			}
		}
		defer table.Close()
		fill(table)
		view := table.View()
		for range 20 {
			addr, n := rapid.Uint64Range(0, 80).Draw(t, "addr"), rapid.Uint64Range(0, 60).Draw(t, "n")
			var want []byte
			ok := true
			for a := addr; a < addr+n; a++ {
				ok = ok && model[a] != nil
				want = append(want, byte(a))
			}
			pieces, err := view.Translate(addr, n, make([][]byte, 0, 6))
			if (err == nil) != ok {
				t.Fatalf("Translate(%d, %d): %v", addr, n, err)
			}
			if got := bytes.Join(pieces, nil); ok && !bytes.Equal(got, want) {
				t.Fatalf("Translate(%d, %d) = %v, want %v", addr, n, got, want)
			}
		}
	})
}

// fill stores in each byte its guest-physical address.
func fill(t *Table) {
	for _, m := range t.byGuest {
		for i := range m.bytes {
			m.bytes[i] = byte(m.GuestAddr + uint64(i))
		}
	}
}

func lengths(pieces [][]byte) []int {
	var n []int
	for _, p := range pieces {
		n = append(n, len(p))
	}
	return n
}

func TestTruncatedFileFaultsInTheTable(t *testing.T) {
	fd := memfd(t, 4*page)
	table, err := New([]Region{{GuestAddr: 0, Size: 4 * page, UserAddr: 1 << 32}}, []int{fd})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	b, err := table.TranslateUser(1<<32, 4*page)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, 0); err != nil {
		t.Fatal(err)
	}
	if addr := faultAddr(t, b); !table.Contains(addr) {
		t.Fatalf("fault at %#x is not in the table", addr)
	}
}

func faultAddr(t *testing.T, b []byte) (addr uintptr) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		fault, ok := recover().(interface{ Addr() uintptr })
		if !ok {
			t.Fatal("no fault")
		}
		addr = fault.Addr()
	}()
	b[page]++
	return 0
}

func TestContains(t *testing.T) {
	table := mustNew(t, Region{GuestAddr: 0, Size: page, UserAddr: 1 << 32})
	if table.Contains(0) || table.Contains(1<<32) || (*Table)(nil).Contains(1) {
		t.Fatal("an address of nobody is in the table")
	}
}
