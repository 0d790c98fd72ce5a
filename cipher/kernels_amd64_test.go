//go:build amd64 && !purego

package cipher

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestKernelsMixNoSSE: instructions of SSE between those of AVX cost some processors much:
// a few of them took 400 cycles of each call on an Intel Xeon (make bench-cipher). The AVX
// form of an instruction has a V in front.
func TestKernelsMixNoSSE(t *testing.T) {
	source, err := os.ReadFile("xts_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	kernel := regexp.MustCompile(`^TEXT ·(encrypt|decrypt)(AESNI|VAES)\(SB\)`)
	vector := regexp.MustCompile(`^\s+([A-Z0-9]+)\s.*\b[XY][0-9]+\b`)
	kernels, inside := 0, false
	for line := range strings.Lines(string(source)) {
		if strings.HasPrefix(line, "TEXT ") {
			if inside = kernel.MatchString(line); inside {
				kernels++
			}
		}
		if m := vector.FindStringSubmatch(line); inside && m != nil && !strings.HasPrefix(m[1], "V") {
			t.Errorf("an instruction of SSE: %s", strings.TrimSpace(line))
		}
	}
	if kernels != 4 {
		t.Errorf("%d kernels in the source", kernels)
	}
}
