//go:build linux && amd64 && !purego && !race

// The race detector's shadow memory takes half a minute to search. Without
// assembly, vector registers cannot be cleared, and the system stores them where
// it stops a thread.

package cipher

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

// residueUnits is the length of a run that uses all that an engine has.
const residueUnits = 20

// residueMask keeps what the search looks for from being found in the test's own
// memory.
const residueMask = 0x5aa5_c33c_9669_f00f

// Round keys lie in the given memory and nowhere else in the process: not on the
// heap, not on a stack, not in a copy of a stack. Encrypted tweaks are nowhere. The
// test expands a key, uses it, and searches all writable memory: for any eight
// bytes of a round key in FIPS 197's order, any sixteen bytes of the engine's own
// form, any eight bytes of a tweak. The key itself is the caller's affair and is
// not looked for.
func TestNoResidue(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would move the stacks
	forEachEngine(t, func(t *testing.T, e engine) {
		for _, use := range []string{"encrypt", "decrypt", "decrypt until zero"} {
			for _, units := range []int{1, residueUnits} {
				if n := leastResidue(t, e, units, use); n != 0 {
					t.Errorf("%d units, %s: %d pieces of key material are left outside of the given memory", units, use, n)
				}
			}
		}
	})
}

// leastResidue tries a few times: if a signal comes while portable code runs, the
// kernel puts the registers on the signal stack, which no code of ours can wipe.
func leastResidue(t *testing.T, e engine, units int, use string) (n int) {
	t.Helper()
	for range 4 {
		if n = residue(t, e, units, use); n == 0 {
			break
		}
	}
	return n
}

func residue(t *testing.T, e engine, units int, use string) int {
	t.Helper()
	mem := alignedState()
	key := randomKey(t) // of no other test
	growStack()         // no copy of it while it holds round keys
	w := needlesOf(t, e, key)
	growStack() // wipes what that left
	stop := useOnce(t, e, mem, key, units, use)
	defer stop()
	in, out := search(t, w, mem)
	if in == 0 {
		t.Fatal("the search does not even find the round keys in their place")
	}
	clear(mem)
	return out
}

func randomKey(t *testing.T) []byte {
	t.Helper()
	key := make([]byte, KeySize)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	return key
}

// useOnce makes and uses an XTS on a stack of its own, which is small and has to
// grow. Until it is told to stop that goroutine spins and calls nothing, so that its
// stack stays as it is.
func useOnce(t *testing.T, e engine, mem, key []byte, units int, use string) (stop func()) {
	t.Helper()
	var done, release atomic.Bool
	var user sync.WaitGroup
	buf := make([]byte, units*512)
	for i := range units / 2 { // the next one begins with zeros
		buf[i*512] = 1
	}
	user.Go(func() {
		x, _ := newXTS(e, mem, key, 512)
		switch use {
		case "encrypt":
			x.Encrypt(buf, buf, 0)
		case "decrypt":
			x.Decrypt(buf, buf, 0)
		default:
			x.DecryptUntilZero(buf, buf, 0, nil)
		}
		done.Store(true)
		for !release.Load() {
		}
	})
	for !done.Load() {
		runtime.Gosched()
	}
	return func() {
		release.Store(true)
		user.Wait()
	}
}

//go:noinline
func growStack() {
	var pad [1 << 16]byte
	wipe(pad[:])
}

// needles are words to look for, masked: two neighbours, or one word and zero.
type needles struct {
	all   map[[2]uint64]bool
	first [1 << 16]bool // by bits of each needle's first word, for speed
}

//go:noinline
func needlesOf(t *testing.T, e engine, key []byte) *needles {
	w := &needles{all: make(map[[2]uint64]bool)}
	x := mustXTS(t, e, key, 512)
	w.addPairs(x.state[:], key)
	x.Destroy()
	x = mustXTS(t, engineGeneric, key, 512)
	w.addSchedule(&x.state.generic().data)
	w.addSchedule(&x.state.generic().tweak)
	for u := uint64(0); u < residueUnits; u += 4 {
		w.addTweaks(&x.state.generic().tweak, u)
	}
	x.Destroy()
	return w
}

func (w *needles) add(word uint64) { w.insert(word^residueMask, 0) }

func (w *needles) insert(a, b uint64) {
	w.all[[2]uint64{a, b}] = true
	w.first[slot(a)] = true
}

// slot spreads words of few bits, which bitsliced keys are full of.
func slot(a uint64) uint16 { return uint16(a * 0x9e3779b97f4a7c15 >> 48) }

func (w *needles) addPairs(mem, key []byte) {
	for i := 0; i+16 <= len(mem); i += 8 {
		a, b := binary.LittleEndian.Uint64(mem[i:]), binary.LittleEndian.Uint64(mem[i+8:])
		if !bytes.Contains(key, mem[i:i+8]) && !bytes.Contains(key, mem[i+8:i+16]) && a != b && a != 0 && b != 0 {
			w.insert(a^residueMask, b^residueMask)
		}
	}
}

// addSchedule adds the round keys from the third on; the key is the first two.
func (w *needles) addSchedule(k *schedule) {
	for r := 2; r <= rounds; r++ {
		var b blocks
		lanes := k[r]
		lanes.store(&b)
		w.add(b[0])
		w.add(b[1])
	}
}

// addTweaks adds the tweaks of all blocks of four data units of 512 bytes.
func (w *needles) addTweaks(k *schedule, sector uint64) {
	var b blocks
	k.unitTweaks(&b, sector, 0, 1)
	for u := 0; u < len(b); u += 2 {
		t := tweak{b[u], b[u+1]}
		for range 512 / blockSize {
			w.add(t.lo)
			w.add(t.hi)
			t.double()
		}
	}
}

func (w *needles) found(page []byte, i int) bool {
	a := binary.LittleEndian.Uint64(page[i:]) ^ residueMask
	if !w.first[slot(a)] {
		return false
	}
	if w.all[[2]uint64{a}] {
		return true
	}
	return i+16 <= len(page) && w.all[[2]uint64{a, binary.LittleEndian.Uint64(page[i+8:]) ^ residueMask}]
}

// search counts the needles in the writable memory of the process, in mem and
// elsewhere.
func search(t *testing.T, w *needles, mem []byte) (in, out int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	process, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer process.Close()
	first := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem))))
	lines := bufio.NewScanner(strings.NewReader(string(maps)))
	for lines.Scan() {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(mode, "rw") || to>>63 != 0 {
			continue
		}
		for _, at := range w.places(process, from, to) {
			if at-first < uint64(len(mem)) {
				in++
			} else {
				out++
			}
		}
	}
	return in, out
}

// places returns the addresses of needles in a range of the process's memory.
func (w *needles) places(process *os.File, from, to uint64) (at []uint64) {
	page := make([]byte, 4096)
	defer clear(page) // it holds copies
	for ; from < to; from += uint64(len(page)) {
		if n, err := process.ReadAt(page, int64(from)); err != nil || n != len(page) {
			continue
		}
		for i := 0; i < len(page); i += 8 {
			if w.found(page, i) {
				at = append(at, from+uint64(i))
			}
		}
	}
	return at
}
