package secret

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"sealblk/internal/leaktest"
)

// TestMain runs the tests, or, in a subprocess that a test started, one scenario.
func TestMain(m *testing.M) {
	if name := os.Getenv("SECRET_TEST_SCENARIO"); name != "" {
		if err := scenarios[name](); err != nil {
			fmt.Println("FAIL:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	leaktest.Main(m, noBuffersLeft)
}

func noBuffersLeft() error {
	if n, size := Live(); n != 0 || size != 0 {
		return fmt.Errorf("%d buffers with %d bytes were not destroyed", n, size)
	}
	return nil
}

// backings are the kinds of memory that this host has.
func backings(t *testing.T) []Backing {
	t.Helper()
	m, err := allocate(1, MemfdSecret)
	if err != nil {
		t.Logf("memfd_secret is not tested here: %v", err)
		return []Backing{Mlock}
	}
	if err := m.free(); err != nil {
		t.Fatal(err)
	}
	return []Backing{Mlock, MemfdSecret}
}

// onEach runs a test on each kind of memory.
func onEach(t *testing.T, size int, f func(t *testing.T, b *Buffer)) {
	for _, backing := range backings(t) {
		t.Run(backing.String(), func(t *testing.T) {
			m, err := allocate(size, backing)
			if err != nil {
				t.Fatal(err)
			}
			b := newBuffer(m)
			defer b.Destroy()
			f(t, b)
		})
	}
}

// mapping is an entry of /proc/self/smaps: its first line and its VmFlags.
type mapping struct {
	line  string
	flags []string
}

// mappingAt is the mapping that holds an address, if there is one.
func mappingAt(t *testing.T, addr uintptr) (mapping, bool) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var found mapping
	var inside bool
	for s := bufio.NewScanner(f); s.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(s.Text(), "%x-%x ", &from, &to); n == 2 {
			if inside = from <= addr && addr < to; inside {
				found.line = s.Text()
			}
		} else if rest, ok := strings.CutPrefix(s.Text(), "VmFlags:"); ok && inside {
			found.flags = strings.Fields(rest)
		}
	}
	return found, found.line != ""
}
