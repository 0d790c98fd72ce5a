package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The AES units share their two ports with other vector instructions, so what the
// tweaks need is chosen by its ports (AMD Zen 3 and 4): logical operations go to
// any of four and rarely take a place from a round; a shift or shuffle goes to two,
// one of which is an AES port; the carry-less multiplication goes to the AES ports.
// Loads go elsewhere altogether.

// firstTweaks sets the tweaks of the first batch. The tweak of a lone unit does not
// wait for others to be encrypted with it and does not go through memory.
func (k *kernel) firstTweaks() {
	XORL(k.index.As32(), k.index.As32())
	CMPQ(k.units, U8(1))
	JNE(LabelRef("many"))
	k.encryptOne()
	JMP(LabelRef("expand"))
	Label("many")
	k.fill()
	k.loadUnitTweak()
	Label("expand")
	for _, step := range k.expand(k.current) {
		step()
	}
}

// encryptOne sets base to the encrypted tweak of one unit.
func (k *kernel) encryptOne() {
	t := k.states[0].AsX()
	k.plainTweak(t)
	for r := range rounds + 1 {
		tweakRound(r, Mem{Base: k.keys, Disp: tweakKeys + r*blockSize}, t)
	}
	if k.bytes > blockSize {
		VINSERTI128(U8(1), t, k.states[0], k.base)
	} else {
		VMOVDQA(t, k.base)
	}
}

// plainTweak uses AVX alone, as all of a kernel does: an Intel Xeon took 400 cycles more
// for a call with moves of SSE here and in wideStep.
func (k *kernel) plainTweak(t reg.Register) {
	VMOVQ(k.sector, t)
	VPINSRQ(U8(1), k.hi, t, t)
}

// fill encrypts the tweaks of the next group of units, whether there are so many
// left or not, and starts the index anew.
func (k *kernel) fill() {
	first, step := k.states[0], k.u
	k.plainTweak(first.AsX())
	k.wideStep(first, step)
	regs := group / k.blocks()
	for done := 0; done < regs; done += inFlight {
		for i := 1; i < inFlight; i++ {
			VPADDQ(step, k.states[i-1], k.states[i])
		}
		VPADDQ(step, k.states[inFlight-1], k.v)
		for r := range rounds + 1 {
			k.broadcast(Mem{Base: k.keys, Disp: tweakKeys + r*blockSize}, k.key)
			for _, s := range k.states {
				tweakRound(r, k.key, s)
			}
		}
		for i, s := range k.states {
			VMOVDQA(s, Mem{Base: k.unitTweaks, Disp: (done + i) * k.bytes})
		}
		if done+inFlight < regs {
			VMOVDQA(k.v, first)
		}
	}
	MOVQ(k.step, k.index)
	SHLQ(U8(log2(group)), k.index)
	ADDQ(k.index, k.sector)
	XORL(k.index.As32(), k.index.As32())
}

// wideStep completes the first register of plain tweaks, of which only the first
// is there yet, and sets step to what leads from one register to the next. The sum
// is of the low halves alone: the sector count ends at 2^64 and begins anew.
func (k *kernel) wideStep(first, step reg.VecPhysical) {
	VMOVQ(k.step, step.AsX())
	if k.bytes == blockSize {
		return
	}
	second := k.v.AsX()
	VPADDQ(step.AsX(), first.AsX(), second)
	VINSERTI128(U8(1), second, first, first)
	VPADDQ(step.AsX(), step.AsX(), step.AsX())
	VINSERTI128(U8(1), step.AsX(), step, step)
}

func tweakRound(r int, key Op, s reg.Register) {
	switch r {
	case 0:
		VPXOR(key, s, s)
	case rounds:
		VAESENCLAST(key, s, s)
	default:
		VAESENC(key, s, s)
	}
}

// loadUnitTweak sets base to the encrypted tweak of the next unit.
func (k *kernel) loadUnitTweak() {
	k.broadcast(Mem{Base: k.unitTweaks, Index: k.index, Scale: 1}, k.base)
	ADDQ(U8(blockSize), k.index)
}

// expand returns the steps that make the tweaks of a unit's first batch from base,
// and put them to p. Each is made from base and not from the one before, so that
// none waits.
func (k *kernel) expand(p reg.GPPhysical) (steps []func()) {
	steps = append(steps, func() {
		if k.bytes > blockSize {
			VPSRLVQ(constant("laneCarries", 64, 64, 63, 63), k.base, k.u)
			VPSLLVQ(constant("laneShifts", 0, 0, 1, 1), k.base, k.base)
			k.reduce(k.base)
		}
		VMOVDQA(k.base, Mem{Base: p})
	})
	for i := 1; i < inFlight; i++ {
		steps = append(steps, func() {
			k.multiply(uint64(i * k.blocks()))
			VMOVDQA(k.w, Mem{Base: p, Disp: i * k.bytes})
		})
	}
	return steps
}

// multiply sets w to base times x^n in every block, 0 < n < 16.
func (k *kernel) multiply(n uint64) {
	if n == 8 { // whole bytes are fewer instructions
		VPSRLDQ(U8(15), k.base, k.u)
		VPSLLDQ(U8(1), k.base, k.w)
		VPCLMULQDQ(U8(0), k.poly, k.u, k.u)
		VPXOR(k.u, k.w, k.w)
		return
	}
	VPSRLQ(U8(64-n), k.base, k.u)
	VPSLLQ(U8(n), k.base, k.w)
	k.reduce(k.w)
}

// reduce adds to r the bits in u, which a shift pushed out of the halves of a
// block: those of the low half belong to the high half; those of the high half,
// times x^128 = x^7 + x^2 + x + 1, to the low half.
func (k *kernel) reduce(r reg.VecPhysical) {
	VPSLLDQ(U8(8), k.u, k.v)
	VPCLMULQDQ(U8(1), k.poly, k.u, k.u)
	VPXOR(k.v, r, r)
	VPXOR(k.u, r, r)
}

// advanceBytes is what advance shifts a tweak by: one bit for a block of the batch.
func (k *kernel) advanceBytes() int { return inFlight * k.blocks() / 8 }

// advance returns the steps that make the next batch's tweaks from this one's. The
// shift by whole bytes, up and down, is a load from a shifted place and a mask for
// what comes in from the neighbours: no shift, which would take an AES port. Such
// a load cannot take its bytes from a store on its way to memory; these were
// stored a batch ago, and nothing waits for the result before the next batch.
func (k *kernel) advance() (steps []func()) {
	n := k.advanceBytes()
	for i := range inFlight {
		at := Mem{Base: k.current, Disp: i * k.bytes}
		steps = append(steps, func() {
			VPAND(at.Offset(blockSize-n), k.carryMask, k.u)
			VPAND(at.Offset(-n), k.shiftMask, k.w)
			VPCLMULQDQ(U8(0), k.poly, k.u, k.u)
			VPXOR(k.u, k.w, k.w)
			VMOVDQA(k.w, Mem{Base: k.next, Disp: i * k.bytes})
		})
	}
	return steps
}
