package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// width is what differs between the kernels: the registers and how many blocks
// one of them holds.
type width struct {
	engine string // suffix of the functions' names
	bytes  int
	regs   []reg.VecPhysical
}

var (
	// xmm is for processors that have AES-NI, PCLMULQDQ and AVX.
	xmm = width{engine: "AESNI", bytes: 16, regs: []reg.VecPhysical{
		reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7,
		reg.X8, reg.X9, reg.X10, reg.X11, reg.X12, reg.X13, reg.X14, reg.X15,
	}}
	// ymm is for processors that have VAES, VPCLMULQDQ and AVX2.
	ymm = width{engine: "VAES", bytes: 32, regs: []reg.VecPhysical{
		reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7,
		reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
	}}
)

const blockSize = 16

// blocks is the number of blocks in a register.
func (w width) blocks() int { return w.bytes / blockSize }

// broadcast loads 16 bytes into every block of a register. For the narrow kernel
// it is an ordinary load; for both it takes a load port and nothing else.
func (w width) broadcast(m operand.Mem, r reg.VecPhysical) {
	if w.bytes == blockSize {
		VMOVDQU(m, r)
	} else {
		VBROADCASTI128(m, r)
	}
}
