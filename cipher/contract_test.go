package cipher

import (
	"bytes"
	"crypto/aes"
	"math/rand/v2"
	"strconv"
	"testing"

	"golang.org/x/crypto/xts"
)

// forEachEngine runs f once for every engine that this machine can run.
func forEachEngine(t *testing.T, f func(*testing.T, engine)) {
	t.Helper()
	for _, e := range engines() {
		t.Run(e.String(), func(t *testing.T) { f(t, e) })
	}
}

func mustXTS(t testing.TB, e engine, key []byte, unitSize int) *XTS {
	t.Helper()
	x, err := newXTS(e, alignedState(), key, unitSize)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func newRand(seed uint64) *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
}

func randomBytes(r *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

// oracle encrypts with golang.org/x/crypto/xts, one data unit at a time.
func oracle(t testing.TB, key, src []byte, unitSize int, sector uint64) []byte {
	t.Helper()
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, len(src))
	for i := 0; i < len(src); i += unitSize {
		c.Encrypt(dst[i:i+unitSize], src[i:i+unitSize], sector+uint64(i/SectorSize))
	}
	return dst
}

var unitSizes = []int{512, 1024, 2048, 4096}

// sectors are first sectors worth a test; the last ones roll over within a run.
var sectors = []uint64{0, 1, 7, 255, 1<<32 - 3, 1 << 32, 1<<63 - 1, 1<<64 - 9, 1<<64 - 1}

func TestMatchesOracle(t *testing.T) {
	forEachEngine(t, func(t *testing.T, e engine) {
		r := newRand(1)
		for _, unitSize := range unitSizes {
			for i, units := range []int{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 31, 32, 33, 48} {
				key, src := randomBytes(r, KeySize), randomBytes(r, units*unitSize)
				x := mustXTS(t, e, key, unitSize)
				sector := sectors[i%len(sectors)]
				want := oracle(t, key, src, unitSize, sector)
				got := make([]byte, len(src))
				x.Encrypt(got, src, sector)
				if !bytes.Equal(got, want) {
					t.Fatalf("unit %d, %d units, sector %d: ciphertext differs at byte %d", unitSize, units, sector, firstDifference(got, want))
				}
				x.Decrypt(got, want, sector)
				if !bytes.Equal(got, src) {
					t.Fatalf("unit %d, %d units, sector %d: plaintext differs at byte %d", unitSize, units, sector, firstDifference(got, src))
				}
			}
		}
	})
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func TestEverySector(t *testing.T) {
	forEachEngine(t, func(t *testing.T, e engine) {
		r := newRand(2)
		key, src := randomBytes(r, KeySize), randomBytes(r, 24*512)
		for _, unitSize := range unitSizes {
			x := mustXTS(t, e, key, unitSize)
			for _, sector := range sectors {
				got := make([]byte, len(src))
				x.Encrypt(got, src, sector)
				if want := oracle(t, key, src, unitSize, sector); !bytes.Equal(got, want) {
					t.Errorf("unit %d, sector %d: ciphertext differs at byte %d", unitSize, sector, firstDifference(got, want))
				}
			}
		}
	})
}

// A run gives the same bytes as its units one by one, in any grouping.
func TestRunEqualsUnits(t *testing.T) {
	forEachEngine(t, func(t *testing.T, e engine) {
		r := newRand(3)
		x := mustXTS(t, e, randomBytes(r, KeySize), 512)
		src := randomBytes(r, 70*512)
		whole := make([]byte, len(src))
		x.Encrypt(whole, src, 1000)
		for group := 1; group < 40; group += 3 {
			parts := make([]byte, len(src))
			for at := 0; at < len(src); at += group * 512 {
				end := min(at+group*512, len(src))
				x.Encrypt(parts[at:end], src[at:end], 1000+uint64(at/512))
			}
			if !bytes.Equal(parts, whole) {
				t.Errorf("groups of %d units give other bytes from %d on", group, firstDifference(parts, whole))
			}
		}
	})
}

// Every alignment of source and destination, with a canary on both sides of each:
// nothing outside is written, the source is not changed, and what lies around the
// source has no part in the result.
func TestAlignmentsAndCanaries(t *testing.T) {
	const margin, alignments = 64, 67
	forEachEngine(t, func(t *testing.T, e engine) {
		r := newRand(4)
		key := randomBytes(r, KeySize)
		for _, size := range []int{512, 3 * 512, 17 * 512} {
			x := mustXTS(t, e, key, 512)
			plain := randomBytes(r, size)
			secret := oracle(t, key, plain, 512, 5)
			for a := range alignments {
				b := a * 31 % alignments
				src := randomBytes(r, size+2*margin+alignments)
				dst := bytes.Repeat([]byte{0xc5}, len(src))
				runBetweenCanaries(t, dst, src, margin+b, margin+a, plain, secret, x.Encrypt)
				runBetweenCanaries(t, dst, src, margin+b, margin+a, secret, plain, x.Decrypt)
			}
		}
	})
}

func runBetweenCanaries(t *testing.T, dst, src []byte, dstAt, srcAt int, in, want []byte, op func(dst, src []byte, sector uint64)) {
	t.Helper()
	copy(src[srcAt:], in)
	srcBefore, dstBefore := bytes.Clone(src), bytes.Clone(dst)
	op(dst[dstAt:dstAt+len(in)], src[srcAt:srcAt+len(in)], 5)
	if !bytes.Equal(src, srcBefore) {
		t.Fatalf("source changed at %d of %d (source at %d)", firstDifference(src, srcBefore), len(in), srcAt)
	}
	copy(dstBefore[dstAt:], want)
	if !bytes.Equal(dst, dstBefore) {
		t.Fatalf("destination wrong at %d, which begins at %d and has %d bytes", firstDifference(dst, dstBefore), dstAt, len(in))
	}
}

func TestInPlace(t *testing.T) {
	forEachEngine(t, func(t *testing.T, e engine) {
		r := newRand(5)
		key := randomBytes(r, KeySize)
		for _, unitSize := range unitSizes {
			for offset := range 17 {
				plain := randomBytes(r, 19*unitSize)
				buf := make([]byte, offset+len(plain))[offset:]
				copy(buf, plain)
				x := mustXTS(t, e, key, unitSize)
				x.Encrypt(buf, buf, 1<<40)
				if !bytes.Equal(buf, oracle(t, key, plain, unitSize, 1<<40)) {
					t.Fatalf("unit %d, offset %d: encryption in place is wrong", unitSize, offset)
				}
				x.Decrypt(buf, buf, 1<<40)
				if !bytes.Equal(buf, plain) {
					t.Fatalf("unit %d, offset %d: decryption in place is wrong", unitSize, offset)
				}
			}
		}
	})
}

// Buffers that touch but do not overlap are allowed, and longer outputs keep their
// tail.
func TestNeighbours(t *testing.T) {
	forEachEngine(t, func(t *testing.T, e engine) {
		r := newRand(6)
		key := randomBytes(r, KeySize)
		x := mustXTS(t, e, key, 512)
		buf := randomBytes(r, 1024)
		want := oracle(t, key, buf[512:], 512, 9)
		x.Encrypt(buf[:512], buf[512:], 9)
		if !bytes.Equal(buf[:512], want) {
			t.Error("output just below the input is wrong")
		}
		want = append(oracle(t, key, buf[:512], 512, 9), 1, 2, 3)
		dst := append(make([]byte, 512), 1, 2, 3)
		x.Encrypt(dst, buf[:512], 9)
		if !bytes.Equal(dst, want) {
			t.Error("output longer than the input is wrong")
		}
		x.Encrypt(nil, nil, 9)
		x.Decrypt(dst, nil, 9)
		if !bytes.Equal(dst, want) {
			t.Error("an empty input changed the output")
		}
	})
}

func TestBrokenContractPanics(t *testing.T) {
	buf := make([]byte, 8192)
	destroyed := mustXTS(t, best(), testKey(), 512)
	destroyed.Destroy()
	for _, c := range []struct {
		name     string
		unitSize int
		dst, src []byte
		x        *XTS
	}{
		{name: "part of a unit", unitSize: 512, dst: buf, src: buf[:511]},
		{name: "one byte more", unitSize: 512, dst: buf, src: buf[:513]},
		{name: "half a large unit", unitSize: 4096, dst: buf, src: buf[:2048]},
		{name: "short output", unitSize: 512, dst: buf[:1023], src: buf[4096:5120]},
		{name: "empty output", unitSize: 512, dst: nil, src: buf[:512]},
		{name: "overlap one up", unitSize: 512, dst: buf[1:], src: buf[:1024]},
		{name: "overlap one down", unitSize: 512, dst: buf[:1024], src: buf[1:1025]},
		{name: "overlap by one byte", unitSize: 512, dst: buf[511:1023], src: buf[:512]},
		{name: "overlap by a unit", unitSize: 512, dst: buf[512:], src: buf[:1024]},
		{name: "destroyed", dst: buf, src: buf[:512], x: destroyed},
		{name: "destroyed, nothing to do", x: destroyed},
	} {
		x := c.x
		if x == nil {
			x = mustXTS(t, best(), testKey(), c.unitSize)
		}
		mustPanic(t, "Encrypt: "+c.name, func() { x.Encrypt(c.dst, c.src, 0) })
		mustPanic(t, "Decrypt: "+c.name, func() { x.Decrypt(c.dst, c.src, 0) })
	}
	if !bytes.Equal(buf, make([]byte, len(buf))) {
		t.Error("a refused call wrote to its output")
	}
}

func mustPanic(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: did not panic", name)
		}
	}()
	f()
}

func testKey() []byte { return randomBytes(newRand(99), KeySize) }

func TestNoAllocation(t *testing.T) {
	forEachEngine(t, func(t *testing.T, e engine) {
		for _, unitSize := range unitSizes {
			x := mustXTS(t, e, testKey(), unitSize)
			n := testing.AllocsPerRun(20, func() {
				var buf [4096]byte // on the stack, if it does not escape
				x.Encrypt(buf[:], buf[:], 1)
				x.Decrypt(buf[:], buf[:], 1)
			})
			if n != 0 {
				t.Errorf("unit %d: %v allocations a call", unitSize, n)
			}
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	forEachEngine(t, func(t *testing.T, e engine) {
		r := newRand(7)
		key, src := randomBytes(r, KeySize), randomBytes(r, 20*512)
		x := mustXTS(t, e, key, 512)
		for i := range 4 {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				for j := range 20 {
					sector := uint64(i*1000 + j)
					got := make([]byte, len(src))
					x.Encrypt(got, src, sector)
					if !bytes.Equal(got, oracle(t, key, src, 512, sector)) {
						t.Fatal("wrong ciphertext")
					}
				}
			})
		}
	})
}

func FuzzEngines(f *testing.F) {
	f.Add([]byte("seed"), uint64(0), uint8(0), uint8(1), uint8(0))
	f.Add([]byte("another"), uint64(1<<64-2), uint8(3), uint8(3), uint8(5))
	f.Add([]byte{}, uint64(1<<32-1), uint8(0), uint8(40), uint8(31))
	f.Fuzz(func(t *testing.T, seed []byte, sector uint64, unit, units, offset uint8) {
		r := newRand(uint64(len(seed)))
		unitSize := unitSizes[unit%4]
		key := randomBytes(r, KeySize)
		copy(key, seed)
		if bytes.Equal(key[:32], key[32:]) {
			t.Skip()
		}
		src := randomBytes(r, int(units%40)*unitSize)
		copy(src, seed)
		want := oracle(t, key, src, unitSize, sector)
		for _, e := range engines() {
			x := mustXTS(t, e, key, unitSize)
			got := make([]byte, int(offset)+len(src))[offset:]
			x.Encrypt(got, src, sector)
			if !bytes.Equal(got, want) {
				t.Fatalf("%s: ciphertext differs at byte %d", e, firstDifference(got, want))
			}
			x.Decrypt(got, got, sector)
			if !bytes.Equal(got, src) {
				t.Fatalf("%s: plaintext differs at byte %d", e, firstDifference(got, src))
			}
		}
	})
}
