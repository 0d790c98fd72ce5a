//go:build linux

package cipher

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// residueMask keeps what the scan looks for from being found in the scan's own
// memory.
const residueMask = 0x5aa5_c33c_9669_f00f

// Round keys lie in the given memory and nowhere else in the process: not on the
// heap, not on a stack, not in a copy of a stack. The test expands a key, uses it,
// and searches all writable memory for the round keys, as any eight bytes of them
// in FIPS 197's order and as any sixteen bytes of the engine's own form. The key
// itself is the caller's affair and is not looked for.
func TestNoRoundKeysElsewhere(t *testing.T) {
	forEachEngine(t, func(t *testing.T, e engine) {
		mem := alignedState()
		key := randomBytes(newRand(0xe1e), KeySize) // of no other test
		x := useOnce(e, mem, key)
		if x == nil {
			t.Fatal("no cipher")
		}
		w := make(needles)
		w.addPairs(mem, key)
		w.addRoundKeys(key)
		if scan(t, w) == 0 {
			t.Fatal("the scan does not even find the round keys in their place")
		}
		x.Destroy()
		if n := scan(t, w); n != 0 {
			t.Errorf("%d pieces of round keys are left outside of the given memory", n)
		}
		runtime.KeepAlive(mem)
	})
}

// useOnce makes and uses an XTS on a stack of its own, which is small and has to grow.
func useOnce(e engine, mem, key []byte) *XTS {
	done := make(chan *XTS)
	go func() {
		x, err := newXTS(e, mem, key, 512)
		if err == nil {
			buf := make([]byte, 4096)
			x.Encrypt(buf, buf, 1)
			x.Decrypt(buf, buf, 1)
		}
		done <- x
	}()
	return <-done
}

// needles are words to look for, masked: two neighbours, or one word and zero.
type needles map[[2]uint64]bool

func (w needles) addPairs(mem, key []byte) {
	for i := 0; i+16 <= len(mem); i += 8 {
		a, b := binary.LittleEndian.Uint64(mem[i:]), binary.LittleEndian.Uint64(mem[i+8:])
		if !bytes.Contains(key, mem[i:i+8]) && !bytes.Contains(key, mem[i+8:i+16]) && a != b && a != 0 && b != 0 {
			w[[2]uint64{a ^ residueMask, b ^ residueMask}] = true
		}
	}
}

// addRoundKeys adds the round keys from the second on, which the key does not hold.
func (w needles) addRoundKeys(key []byte) {
	s := stateIn(alignedState())
	expandGeneric(s, (*[KeySize]byte)(key))
	w.addSchedule(&s.generic().data)
	w.addSchedule(&s.generic().tweak)
	clear(s[:])
	scrubStack()
}

//go:noinline
func (w needles) addSchedule(k *schedule) {
	for r := 2; r <= rounds; r++ {
		var b blocks
		k[r].store(&b)
		w[[2]uint64{b[0] ^ residueMask}] = true
		w[[2]uint64{b[1] ^ residueMask}] = true
	}
}

func (w needles) found(page []byte, i int) bool {
	a := binary.LittleEndian.Uint64(page[i:]) ^ residueMask
	if w[[2]uint64{a}] {
		return true
	}
	return i+16 <= len(page) && w[[2]uint64{a, binary.LittleEndian.Uint64(page[i+8:]) ^ residueMask}]
}

// scan counts the needles in the writable memory of the process.
func scan(t *testing.T, w needles) (found int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	lines := bufio.NewScanner(strings.NewReader(string(maps)))
	for lines.Scan() {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(mode, "rw") && to>>63 == 0 {
			found += scanRange(mem, from, to, w)
		}
	}
	return found
}

func scanRange(mem *os.File, from, to uint64, w needles) (found int) {
	page := make([]byte, 4096)
	defer clear(page) // it holds copies
	for ; from < to; from += uint64(len(page)) {
		if n, err := mem.ReadAt(page, int64(from)); err != nil || n != len(page) {
			continue
		}
		for i := 0; i < len(page); i += 8 {
			if w.found(page, i) {
				found++
			}
		}
	}
	return found
}
