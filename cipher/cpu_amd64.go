//go:build amd64 && !purego

package cipher

// Feature bits, AMD64 Architecture Programmer's Manual volume 3, appendix E;
// Intel SDM volume 2A, CPUID.
const (
	leaf1Clmul   = 1 << 1  // ecx
	leaf1AES     = 1 << 25 // ecx
	leaf1OSXSAVE = 1 << 27 // ecx
	leaf1AVX     = 1 << 28 // ecx
	leaf7AVX2    = 1 << 5  // ebx
	leaf7VAES    = 1 << 9  // ecx
	leaf7VClmul  = 1 << 10 // ecx

	// xcr0AVX are the SSE and AVX parts of the register state, which the system
	// must save for us when it switches threads.
	xcr0AVX = 1<<1 | 1<<2
)

func cpuid(leaf, subleaf uint32) (eax, ebx, ecx, edx uint32)

// xgetbv0 reads the register XCR0. It needs OSXSAVE.
func xgetbv0() uint64

// engines lists what the processor and the system support, the best first.
func engines() []engine {
	switch {
	case hasVAES():
		return []engine{engineVAES, engineAESNI, engineGeneric}
	case hasAESNI():
		return []engine{engineAESNI, engineGeneric}
	default:
		return []engine{engineGeneric}
	}
}

func hasAESNI() bool {
	const want = leaf1Clmul | leaf1AES | leaf1OSXSAVE | leaf1AVX
	_, _, ecx, _ := cpuid(1, 0)
	return ecx&want == want && xgetbv0()&xcr0AVX == xcr0AVX
}

func hasVAES() bool {
	if highest, _, _, _ := cpuid(0, 0); highest < 7 || !hasAESNI() {
		return false
	}
	_, ebx, ecx, _ := cpuid(7, 0)
	return ebx&leaf7AVX2 != 0 && ecx&(leaf7VAES|leaf7VClmul) == leaf7VAES|leaf7VClmul
}
