package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Where expandKeys puts the schedules in the state.
const (
	encryptKeys = 0
	decryptKeys = 256
	tweakKeys   = 512
	rounds      = 14
)

// inFlight is the number of registers that go through the rounds together. The
// AES units take two instructions a cycle and answer after four, so eight that do
// not depend on each other keep them busy. Their number also makes a batch a
// whole part of every data unit.
const inFlight = 8

// group is the number of data units whose tweaks are encrypted together, so that
// this too keeps the AES units busy and costs a short unit little.
const group = 16

// kernel generates one direction of one width.
//
// A run goes batch by batch. While a batch is in the rounds, the tweaks of the next
// one are made, in instructions between those of the rounds: either the tweaks of
// this batch times x^8 or x^16, or, at the end of a data unit, the first ones of
// the next unit. So a unit's end costs no more than a batch within it. The tweaks
// wait in memory, for the registers are full: in one of two places, which change
// roles after each batch.
type kernel struct {
	width
	decrypt bool

	keys, dst, src reg.GPPhysical
	units          reg.GPPhysical // data units left
	batches, left  reg.GPPhysical // batches in a unit; left of this one before its last
	sector, step   reg.GPPhysical // low half of the next group's first tweak; from unit to unit
	hi             Mem            // high half of all tweaks
	current, next  reg.GPPhysical // tweaks of this batch, of the next
	unitTweaks     reg.GPPhysical // encrypted tweaks of a group
	index          reg.GPPhysical // byte index there of the next unit's
	ahead          reg.GPPhysical // how far ahead of src memory is asked for

	states               []reg.VecPhysical
	key                  reg.VecPhysical
	base, u, v, w        reg.VecPhysical // base: of the unit whose tweaks are made; the others are free
	shiftMask, carryMask reg.VecPhysical // of advance
	poly                 reg.VecPhysical // x^7 + x^2 + x + 1 in the low half of each block
}

func (k kernel) generate() {
	name := map[bool]string{false: "encrypt", true: "decrypt"}[k.decrypt] + k.engine
	signature := "func(keys, dst, src *byte, units, unitSize, lo, hi uint64, ahead, then uintptr, turn uint64)"
	if k.decrypt {
		signature = "func(keys, dst, src *byte, units, unitSize, lo, hi, skip uint64, ahead, then uintptr, turn uint64) (left uint64)"
	}
	TEXT(name, 0, signature)
	k.assign()
	k.setUp()
	k.firstTweaks()

	Label("unit")
	if k.decrypt {
		k.stopAtZero()
	}
	k.look()
	MOVQ(k.batches, k.left)
	DECQ(k.left)
	JZ(LabelRef("last"))
	Label("batch")
	k.batch(k.advance())
	DECQ(k.left)
	JNZ(LabelRef("batch"))

	Label("last")
	DECQ(k.units)
	JZ(LabelRef("final"))
	CMPQ(k.index, U32(group*blockSize))
	JB(LabelRef("filled"))
	k.fill()
	Label("filled")
	k.loadUnitTweak()
	k.batch(k.expand(k.next))
	JMP(LabelRef("unit"))

	Label("final")
	k.batch(nil)
	Label("wipe")
	if k.decrypt {
		Store(k.units, Return("left"))
	}
	k.wipe()
	RET()
}

// stopAtZero ends the run before a unit whose first 8 bytes are zero, if none of skip's
// bits are set. These bytes are needed in a moment, and nothing waits for the answer.
func (k *kernel) stopAtZero() {
	word := k.ahead
	MOVQ(Mem{Base: k.src}, word)
	ORQ(parameter("skip"), word)
	JZ(LabelRef("wipe"))
}

func (k *kernel) assign() {
	k.keys, k.dst, k.src = reg.RAX, reg.RDI, reg.RSI
	k.units, k.batches, k.left = reg.RCX, reg.RDX, reg.R9
	k.sector, k.step = reg.R8, reg.R10
	k.current, k.next = reg.R11, reg.R12
	k.unitTweaks, k.index = reg.R13, reg.RBX
	k.ahead = reg.R15

	k.states, k.key = k.regs[:inFlight], k.regs[8]
	k.base, k.u, k.v, k.w = k.regs[9], k.regs[10], k.regs[11], k.regs[12]
	k.shiftMask, k.carryMask, k.poly = k.regs[13], k.regs[14], k.regs[15]
}

func (k *kernel) batchBytes() int { return inFlight * k.bytes }

func (k *kernel) setUp() {
	Load(Param("keys"), k.keys)
	Load(Param("dst"), k.dst)
	Load(Param("src"), k.src)
	Load(Param("units"), k.units)
	Load(Param("unitSize"), k.batches)
	Load(Param("lo"), k.sector)
	k.hi = parameter("hi")
	MOVQ(k.batches, k.step)
	SHRQ(U8(log2(512)), k.step)
	SHRQ(U8(log2(k.batchBytes())), k.batches)
	k.setUpFrame()
	k.setUpConstants()
}

// setUpFrame places the tweaks on the stack, aligned to cache lines, with at least
// 16 bytes of the frame below them that advance may read.
func (k *kernel) setUpFrame() {
	const align = 64
	frame := AllocLocal(2*k.batchBytes() + group*blockSize + align + blockSize)
	LEAQ(frame.Offset(align-1+blockSize), k.current)
	ANDQ(I8(-align), k.current)
	LEAQ(Mem{Base: k.current, Disp: k.batchBytes()}, k.next)
	LEAQ(Mem{Base: k.next, Disp: k.batchBytes()}, k.unitTweaks)
}

func (k *kernel) setUpConstants() {
	carry := uint64(1)<<(8*k.advanceBytes()) - 1
	k.broadcast(constant("poly", 0x87, 0), k.poly)
	k.broadcast(constant("shiftMask"+k.engine, ^carry, ^uint64(0)), k.shiftMask)
	k.broadcast(constant("carryMask"+k.engine, carry, 0), k.carryMask)
}

// batch sends inFlight registers through the cipher, with the steps that make the
// next tweaks between the rounds.
func (k *kernel) batch(steps []func()) {
	schedule := encryptKeys
	if k.decrypt {
		schedule = decryptKeys
	}
	for r := range rounds + 1 {
		k.broadcast(Mem{Base: k.keys, Disp: schedule + r*blockSize}, k.key)
		for i, s := range k.states {
			k.round(r, i, s)
		}
		if r > 0 && len(steps) > 0 {
			steps[0]()
			steps = steps[1:]
		}
		k.fetch(r)
	}
	ADDQ(I32(k.batchBytes()), k.src)
	ADDQ(I32(k.batchBytes()), k.dst)
	XCHGQ(k.current, k.next)
}

// look sets ahead for a unit: to then, once as many units have gone by as turn says.
func (k *kernel) look() {
	MOVQ(parameter("ahead"), k.ahead)
	DECQ(parameter("turn"))
	CMOVQEQ(parameter("then"), k.ahead)
	MOVQ(k.ahead, parameter("ahead"))
}

// fetch asks, in the shadow of some rounds, for as many lines of memory as a batch has.
func (k *kernel) fetch(r int) {
	const cacheLine, first, every = 64, 2, 3
	line := (r - first) / every
	if r >= first && (r-first)%every == 0 && line*cacheLine < k.batchBytes() {
		PREFETCHT0(Mem{Base: k.src, Index: k.ahead, Scale: 1, Disp: line * cacheLine})
	}
}

// parameter is where one lies in memory: there are not registers enough for all.
func parameter(name string) Mem {
	p, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return p.Addr
}

// round takes register i one round on. The tweak after the rounds is added to the
// last round key while the rounds run, not to what comes out of them.
func (k *kernel) round(r, i int, s reg.VecPhysical) {
	at := i * k.bytes
	tweak := Mem{Base: k.current, Disp: at}
	switch {
	case r == 0:
		VPXOR(Mem{Base: k.src, Disp: at}, k.key, s)
		VPXOR(tweak, s, s)
	case r < rounds && k.decrypt:
		VAESDEC(k.key, s, s)
	case r < rounds:
		VAESENC(k.key, s, s)
	default:
		VPXOR(tweak, k.key, k.u)
		if k.decrypt {
			VAESDECLAST(k.u, s, s)
		} else {
			VAESENCLAST(k.u, s, s)
		}
		VMOVDQU(s, Mem{Base: k.dst, Disp: at})
	}
}

// wipe clears the tweaks on the stack, and all vector registers. A lone unit has
// left nothing among the unit tweaks; it alone ends with an index of zero.
func (k *kernel) wipe() {
	zero := k.states[0]
	VPXOR(zero, zero, zero)
	CMPQ(k.current, k.next)
	CMOVQHI(k.next, k.current)
	for at := 0; at < 2*k.batchBytes(); at += k.bytes {
		VMOVDQA(zero, Mem{Base: k.current, Disp: at})
	}
	TESTQ(k.index, k.index)
	JZ(LabelRef("wiped"))
	for at := 0; at < group*blockSize; at += k.bytes {
		VMOVDQA(zero, Mem{Base: k.unitTweaks, Disp: at})
	}
	Label("wiped")
	VZEROALL()
}
