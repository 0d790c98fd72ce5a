// Command limit writes the loops that measure what the AES units of the processor
// can do. Run it by go generate in cipher/internal/aeslimit.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	rounds   = 14
	inFlight = 8
)

func main() {
	ConstraintExpr("amd64,!purego")
	loop("roundsXMM", 16, reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7, reg.X8)
	loop("roundsYMM", 32, reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8)
	loop("roundsZMM", 64, reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8)
	spin()
	Generate()
}

// loop generates a function that reads n bytes at p, a multiple of eight registers,
// sends them through 14 AES rounds, eight registers in flight, and writes them back.
// There is no tweak and only one round key, which stays in a register.
func loop(name string, bytes int, regs ...reg.VecPhysical) {
	TEXT(name, attr.NOSPLIT, "func(p *byte, n uint64)")
	p, n := reg.RDI, reg.RCX
	Load(Param("p"), p)
	Load(Param("n"), n)
	states, key := regs[:inFlight], regs[inFlight]
	move := func(from, to Op) { VMOVDQU(from, to) }
	if bytes == 64 {
		move = func(from, to Op) { VMOVDQU64(from, to) }
		VPXORQ(key, key, key)
	} else {
		VPXOR(key, key, key)
	}
	Label(name)
	for i, s := range states {
		move(Mem{Base: p, Disp: i * bytes}, s)
	}
	for range rounds - 1 {
		for _, s := range states {
			VAESENC(key, s, s)
		}
	}
	for i, s := range states {
		VAESENCLAST(key, s, s)
		move(s, Mem{Base: p, Disp: i * bytes})
	}
	ADDQ(U32(inFlight*bytes), p)
	SUBQ(U32(inFlight*bytes), n)
	JNZ(LabelRef(name))
	VZEROUPPER()
	RET()
}

// spin generates a chain of additions, each of which needs the one before: it takes
// a cycle for each and so tells how long a cycle is.
func spin() {
	const chain = 64
	TEXT("spin", attr.NOSPLIT, "func(n uint64)")
	n := reg.RCX
	Load(Param("n"), n)
	Label("spin")
	for range chain {
		ADDQ(reg.RCX, reg.RAX)
	}
	SUBQ(U8(chain), n)
	JNZ(LabelRef("spin"))
	RET()
}
