package cipher

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"sealblk/cipher/internal/aeslimit"
	"sealblk/cipher/internal/speed"
	"sealblk/internal/leaktest"
)

var (
	speedTable  = flag.Bool("speed", false, "measure all implementations and print a table")
	speedBlocks = flag.Int("speed.blocks", 7, "blocks of rounds; OpenSSL runs after each, for 4 seconds")
)

// BenchmarkEncrypt is for comparing a change with what was before, by benchstat.
// The table of TestSpeedTable compares with others.
func BenchmarkEncrypt(b *testing.B) {
	for _, e := range engines() {
		for _, unitSize := range []int{512, 4096} {
			for _, run := range []int{4096, 65536} {
				b.Run(fmt.Sprintf("%v/unit=%d/run=%d", e, unitSize, run), func(b *testing.B) {
					x := mustXTS(b, e, testKey(), unitSize)
					dst, src := make([]byte, run), make([]byte, run)
					b.SetBytes(int64(run))
					for b.Loop() {
						x.Encrypt(dst, src, 1)
					}
				})
			}
		}
	}
}

// TestSpeedTable is what make bench-cipher runs.
func TestSpeedTable(t *testing.T) {
	if !*speedTable {
		t.Skip("measures for half a minute: ask for it with -speed")
	}
	s := newSpeedReport(t)
	openssl := leaktest.Tool(t, "openssl")
	plan := speed.Plan{Blocks: *speedBlocks, Rounds: 60, Between: func() error { return s.runOpenSSL(openssl) }}
	if err := plan.Run(s.cases); err != nil {
		t.Fatal(err)
	}
	s.print(os.Stdout)
}

// speedKey names one row.
type speedKey struct {
	engine    engine
	decrypt   bool
	unit, run int
}

type opensslKey struct {
	decrypt bool
	unit    int
}

type speedReport struct {
	cases   []*speed.Case
	keys    []speedKey
	rows    map[speedKey]*speed.Case
	limits  map[string]*speed.Case
	spin    *speed.Case // one byte a cycle
	disk    []*speed.Case
	openssl map[opensslKey][]float64
}

const spinCycles = 1 << 16

func newSpeedReport(t *testing.T) *speedReport {
	s := &speedReport{
		rows:    make(map[speedKey]*speed.Case),
		limits:  make(map[string]*speed.Case),
		openssl: make(map[opensslKey][]float64),
	}
	if aeslimit.Spin(spinCycles) {
		s.spin = s.add("spin", spinCycles, func() { aeslimit.Spin(spinCycles) })
	}
	l1 := make([]byte, 16<<10)
	for _, loop := range aeslimit.Loops(best() == engineVAES) {
		s.limits[loop.Name] = s.add(loop.Name, len(l1), func() { loop.Run(l1) })
	}
	for _, e := range engines() {
		for _, unit := range []int{4096, 512} {
			s.addRuns(e, unit, mustXTS(t, e, testKey(), unit))
		}
	}
	s.addDisk(mustXTS(t, best(), testKey(), 4096), hugeMemory(t, diskSize))
	return s
}

// diskSize is that of the devices of sealblk bench: much more than the caches hold.
const diskSize = 1 << 30

// hugeMemory is memory with a page below each of its pages.
func hugeMemory(t *testing.T, size int) []byte {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // as blockdev/memory does
	for i := 0; i < size; i += 4096 {
		mem[i] = 1
	}
	return mem
}

// addDisk adds what the cipher alone does in the place of a whole server: it decrypts a
// disk in memory to the buffers of 32 requests, in order and at random.
func (s *speedReport) addDisk(x *XTS, disk []byte) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, run := range []int{128 << 10, 4 << 10} {
		const sample = 8 << 20 // enough for the caches to be this case's own
		buffers, at := make([]byte, 32*run), 0
		do := func() {
			for i := range sample / run {
				x.Decrypt(buffers[i%32*run:][:run], disk[at:at+run], uint64(at)/SectorSize)
				if at = (at + run) % len(disk); run == 4<<10 {
					at = rng.IntN(len(disk)/run) * run
				}
			}
		}
		s.disk = append(s.disk, s.add(fmt.Sprintf("%d KiB of 1 GiB", run>>10), sample, do))
	}
}

func (s *speedReport) add(name string, n int, do func()) *speed.Case {
	c := &speed.Case{Name: name, Bytes: n, Do: do}
	s.cases = append(s.cases, c)
	return c
}

// addRuns adds both directions, from one buffer to another, as a disk is served.
func (s *speedReport) addRuns(e engine, unit int, x *XTS) {
	for _, run := range []int{4 << 10, 64 << 10, 1 << 20} {
		if e == engineGeneric && run > 4<<10 {
			continue // as fast as a short one, and a sample would take long
		}
		dst, src := make([]byte, run), make([]byte, run)
		for _, decrypt := range []bool{false, true} {
			do := func() { x.Encrypt(dst, src, 1<<20) }
			if decrypt {
				do = func() { x.Decrypt(dst, src, 1<<20) }
			}
			k := speedKey{e, decrypt, unit, run}
			s.keys = append(s.keys, k)
			s.rows[k] = s.add("", run, do)
		}
	}
}

func (s *speedReport) runOpenSSL(program string) error {
	for _, unit := range []int{4096, 512} {
		for _, decrypt := range []bool{false, true} {
			rate, err := speed.OpenSSL(program, unit, decrypt)
			if err != nil {
				return err
			}
			k := opensslKey{decrypt, unit}
			s.openssl[k] = append(s.openssl[k], rate)
		}
	}
	return nil
}

// limitOf is the loop of the AES rounds alone at the width of the engine.
func (s *speedReport) limitOf(e engine) *speed.Case {
	if e == engineVAES {
		return s.limits["YMM"]
	}
	return s.limits["XMM"]
}

func direction(decrypt bool) string {
	if decrypt {
		return "decrypt"
	}
	return "encrypt"
}

func (s *speedReport) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "implementation\tdirection\tunit\trun\tGB/s\tbytes/cycle\tof limit\t(10-90 %)\tof OpenSSL\t(10-90 %)\t")
	for _, name := range []string{"XMM", "YMM", "ZMM"} {
		if c := s.limits[name]; c != nil {
			fmt.Fprintf(w, "limit, %s\t\t\t16 KiB\t%s\t\t\t\t\t\n", name, s.rate(c))
		}
	}
	for _, unit := range []int{4096, 512} {
		for _, decrypt := range []bool{false, true} {
			rate := speed.SpreadOf(s.openssl[opensslKey{decrypt, unit}]).Median
			fmt.Fprintf(w, "OpenSSL\t%s\t%d\t%d B\t%.2f\t\t\t\t\t\t\n", direction(decrypt), unit, unit, rate/1e9)
		}
	}
	for _, k := range s.keys {
		s.printRow(w, k)
	}
	for _, c := range s.disk {
		fmt.Fprintf(w, "%v\tdecrypt\t4096\t%s\t%s\t\t\t\t\t\n", best(), c.Name, s.rate(c))
	}
	_ = w.Flush()
	fmt.Fprintln(out)
	s.printBounds(out)
}

func (s *speedReport) printRow(w io.Writer, k speedKey) {
	c := s.rows[k]
	fmt.Fprintf(w, "%v\t%s\t%d\t%d KiB\t%s", k.engine, direction(k.decrypt), k.unit, k.run>>10, s.rate(c))
	if limit := s.limitOf(k.engine); limit != nil && k.engine != engineGeneric {
		fmt.Fprintf(w, "\t%s", format(speed.Ratio(c.Rates, limit.Rates)))
	} else {
		fmt.Fprint(w, "\t\t")
	}
	fmt.Fprintf(w, "\t%s\t\n", format(speed.Ratio(c.Blocks, s.openssl[opensslKey{k.decrypt, k.unit}])))
}

// rate is GB/s and, if cycles can be told, bytes per cycle.
func (s *speedReport) rate(c *speed.Case) string {
	gigabytes := fmt.Sprintf("%.2f", speed.SpreadOf(c.Rates).Median/1e9)
	if s.spin == nil {
		return gigabytes + "\t"
	}
	return fmt.Sprintf("%s\t%.2f", gigabytes, speed.Ratio(c.Rates, s.spin.Rates).Median)
}

func format(s speed.Spread) string {
	return fmt.Sprintf("%.3f\t%.3f-%.3f", s.Median, s.Low, s.High)
}

// printBounds prints what the project asks of the kernels, and what they do.
func (s *speedReport) printBounds(w io.Writer) {
	row := func(e engine, decrypt bool, unit, run int) *speed.Case {
		return s.rows[speedKey{e, decrypt, unit, run << 10}]
	}
	openssl := func(unit int) []float64 { return s.openssl[opensslKey{false, unit}] }
	bound := func(what string, least float64, got speed.Spread) {
		verdict := "holds"
		if !(got.Median >= least) {
			verdict = "DOES NOT HOLD"
		}
		fmt.Fprintf(w, "%-60s at least %.2f: %.3f (%.3f-%.3f) %s\n", what, least, got.Median, got.Low, got.High, verdict)
	}
	for _, e := range engines() {
		if e == engineGeneric {
			continue
		}
		long := row(e, false, 4096, 64)
		if e == engineVAES {
			bound("vaes, unit 4096, run 64 KiB: of the limit", 0.72, speed.Ratio(long.Rates, s.limitOf(e).Rates))
			bound("vaes, unit 4096, run 64 KiB: of OpenSSL", 1.7, speed.Ratio(long.Blocks, openssl(4096)))
		} else {
			bound("aesni, unit 4096, run 64 KiB: of OpenSSL", 0.95, speed.Ratio(long.Blocks, openssl(4096)))
			bound("aesni, unit 512, run 64 KiB: of OpenSSL", 1, speed.Ratio(row(e, false, 512, 64).Blocks, openssl(512)))
		}
		bound(fmt.Sprint(e, ", run 64 KiB: unit 512 of unit 4096"), 0.92, speed.Ratio(row(e, false, 512, 64).Rates, long.Rates))
		bound(fmt.Sprint(e, ", unit 4096: run 4 KiB of run 64 KiB"), 0.90, speed.Ratio(row(e, false, 4096, 4).Rates, long.Rates))
		bound(fmt.Sprint(e, ", unit 4096, run 64 KiB: decrypt of encrypt"), 0.97, speed.Ratio(row(e, true, 4096, 64).Rates, long.Rates))
	}
}
