package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// expandKeys generates the key expansion: 64 bytes of key to the three schedules
// that a kernel needs. Nothing of them is on the stack at any time.
func expandKeys() {
	TEXT("expandAESNI", attr.NOSPLIT, "func(keys, key *byte)")
	Load(Param("keys"), reg.RDI)
	Load(Param("key"), reg.RSI)
	schedule(Mem{Base: reg.RSI}, encryptKeys)
	invert()
	schedule(Mem{Base: reg.RSI, Disp: 32}, tweakKeys)
	VZEROALL()
	RET()
}

// schedule is FIPS 197, 5.2, two round keys a turn.
func schedule(key Mem, to int) {
	even, odd, t, zero := reg.X0, reg.X1, reg.X2, reg.X3
	store := func(r int, x reg.VecPhysical) {
		VMOVDQU(x, Mem{Base: reg.RDI, Disp: to + r*blockSize})
	}
	VPXOR(zero, zero, zero)
	VMOVDQU(key, even)
	VMOVDQU(key.Offset(blockSize), odd)
	store(0, even)
	store(1, odd)
	for r := 2; r <= rounds; r += 2 {
		VAESKEYGENASSIST(U8(1<<(r/2-1)), odd, t)
		VPSHUFD(U8(0xff), t, t)
		addPrefixes(even)
		VPXOR(t, even, even)
		store(r, even)
		if r == rounds {
			return
		}
		VAESKEYGENASSIST(U8(0), even, t)
		VPSHUFD(U8(0xaa), t, t)
		addPrefixes(odd)
		VPXOR(t, odd, odd)
		store(r+1, odd)
	}
}

// addPrefixes adds to each word of x the words before it.
func addPrefixes(x reg.VecPhysical) {
	u := reg.X4
	VPSLLDQ(U8(4), x, u)
	VPXOR(u, x, x)
	VPSLLDQ(U8(8), x, u)
	VPXOR(u, x, x)
}

// invert makes the schedule of the equivalent inverse cipher, FIPS 197, 5.3.5.
func invert() {
	x := reg.X0
	for r := range rounds + 1 {
		VMOVDQU(Mem{Base: reg.RDI, Disp: encryptKeys + (rounds-r)*blockSize}, x)
		if r > 0 && r < rounds {
			VAESIMC(x, x)
		}
		VMOVDQU(x, Mem{Base: reg.RDI, Disp: decryptKeys + r*blockSize})
	}
}

// clearVectors generates what the portable code cannot do for itself: the vector
// registers through which Go moves memory keep what they moved. It needs no more
// than SSE2, which every amd64 processor has.
func clearVectors() {
	TEXT("clearVectors", attr.NOSPLIT, "func()")
	for _, x := range xmm.regs {
		PXOR(x, x)
	}
	RET()
}

// clearWide generates the same for registers of the widest kernel, of which PXOR leaves
// the upper half as it is. It needs AVX.
func clearWide() {
	TEXT("clearWide", attr.NOSPLIT, "func()")
	VZEROALL()
	RET()
}
