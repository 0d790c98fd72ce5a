//go:build amd64 && !purego

package cipher

import (
	"testing"

	klauspost "github.com/klauspost/cpuid/v2"
)

func TestProbeMatchesCpuid(t *testing.T) {
	cpu := klauspost.CPU
	aesni := cpu.Supports(klauspost.AESNI, klauspost.CLMUL, klauspost.AVX)
	if hasAESNI() != aesni {
		t.Errorf("hasAESNI is %v, cpuid says %v", hasAESNI(), aesni)
	}
	vaes := aesni && cpu.Supports(klauspost.AVX2, klauspost.VAES, klauspost.VPCLMULQDQ)
	if hasVAES() != vaes {
		t.Errorf("hasVAES is %v, cpuid says %v", hasVAES(), vaes)
	}
}
