package luks

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// The forms in which a key may be left: as it is, and XORed with HMAC's constants;
// each also with the bytes of a word swapped, as SHA-256 loads it.
var keyMasks = map[string]byte{"key": 0, "inner key block": 0x36, "outer key block": 0x5c}

// needleSize is how many bytes in a row count as a find.
const needleSize = 8

// TestKeyLeavesNoCopies scans the memory of a process of its own, once for each
// implementation of SHA-256 that the CPU offers, after Format and VerifyKey.
func TestKeyLeavesNoCopies(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's shadow memory is too large to scan; the test runs without it")
	}
	if os.Getenv("LUKS_SCAN") != "" {
		scanSelf(t)
		return
	}
	for _, cpu := range []string{"", "cpu.sha=off", "cpu.sha=off,cpu.avx2=off"} {
		t.Run("GODEBUG="+cpu, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKeyLeavesNoCopies$", "-test.v")
			cmd.Env = append(os.Environ(), "LUKS_SCAN=1", "GODEBUG="+cpu)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func scanSelf(t *testing.T) {
	mem := outside(t, 2*4096)
	key, buf := mem[:keySize], mem[4096:]
	fillKey(key)
	f := &memFile{}
	h, err := Format(f, testParams(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.VerifyKey(key); err != nil {
		t.Fatal(err)
	}
	for name, mask := range keyMasks {
		if at := findKey(t, key, mask, buf); at != "" {
			t.Errorf("%s was left at %s", name, at)
		}
	}
	// The scan must be able to fail: it finds each form once it is there.
	for name, mask := range keyMasks {
		planted := make([]byte, keySize)
		for i := range planted {
			planted[i] = key[i] ^ mask
		}
		if findKey(t, key, mask, buf) == "" {
			t.Errorf("scan does not find a planted %s", name)
		}
		f.b = apply(f.b, 0x9000, planted) // keeps it alive until here
		clear(planted)
		clear(f.b[0x9000:][:keySize])
	}
}

// outside is memory that the scan leaves out, found by its address.
func outside(t *testing.T, n int) []byte {
	t.Helper()
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(b) })
	return b
}

// fillKey makes a key that is nowhere else in memory, byte by byte in place.
func fillKey(key []byte) {
	x := uint32(0x9e3779b9)
	for i := range key {
		x = x*1664525 + 1013904223
		key[i] = byte(x >> 24)
	}
}

// findKey looks through all writable memory, but for the mapping that holds the key
// and the scan's buffer, for any whole 8 bytes of the key in that form.
func findKey(t *testing.T, key []byte, mask byte, buf []byte) string {
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
	own := fmt.Sprintf("%p", key)
	lines := bufio.NewScanner(strings.NewReader(string(maps)))
	for lines.Scan() {
		var from, to int64
		var perm string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &perm); err != nil || !strings.HasPrefix(perm, "rw") {
			continue
		}
		if at := findIn(mem, from, to, key, mask, buf, own); at != 0 {
			return fmt.Sprintf("%#x in %s", at, lines.Text())
		}
	}
	return ""
}

// findIn reads memory page by page through buf, which lies in the mapping that is
// left out, and clears it after each.
func findIn(mem *os.File, from, to int64, key []byte, mask byte, buf []byte, own string) int64 {
	var ownAt int64
	fmt.Sscanf(own, "0x%x", &ownAt)
	defer clear(buf)
	for at := from; at < to; at += int64(len(buf)) {
		if at >= ownAt && at < ownAt+2*4096 {
			continue
		}
		if _, err := mem.ReadAt(buf, at); err != nil {
			continue
		}
		if i := match(buf, key, mask); i >= 0 {
			return at + int64(i)
		}
	}
	return 0
}

// match compares byte by byte, so that it never holds a masked key itself.
func match(buf, key []byte, mask byte) int {
	if allZero(buf) {
		return -1
	}
	var first [256]bool
	for k := 0; k < keySize; k += needleSize {
		first[key[k]^mask], first[key[k+3]^mask] = true, true
	}
	for i := 0; i+needleSize <= len(buf); i += 4 {
		if !first[buf[i]] {
			continue
		}
		for k := 0; k+needleSize <= keySize; k += needleSize {
			if same(buf[i:], key[k:], mask, 0) || same(buf[i:], key[k:], mask, 3) {
				return i
			}
		}
	}
	return -1
}

// same compares needleSize bytes; swap 3 reverses the bytes of each 32-bit word.
func same(b, key []byte, mask byte, swap int) bool {
	for j := range needleSize {
		if b[j^swap] != key[j]^mask {
			return false
		}
	}
	return true
}
