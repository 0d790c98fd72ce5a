//go:build amd64 && !purego

package aeslimit

import "golang.org/x/sys/cpu"

//go:generate go run -C ../../_asm ./limit -out ../internal/aeslimit/limit_amd64.s -pkg aeslimit

//go:noescape
func roundsXMM(p *byte, n uint64)

//go:noescape
func roundsYMM(p *byte, n uint64)

//go:noescape
func roundsZMM(p *byte, n uint64)

// spin does n additions, a multiple of 64, one after the other.
func spin(n uint64)

// Loops returns what the processor can run, the narrowest registers first. The
// flags of x/sys/cpu tell VAES only together with AVX-512, so whether there is
// VAES on narrower registers is for the caller to know.
func Loops(vaes bool) []Loop {
	var loops []Loop
	if cpu.X86.HasAES && cpu.X86.HasAVX {
		loops = append(loops, Loop{"XMM", func(p []byte) { roundsXMM(&p[0], uint64(len(p))) }})
	}
	if vaes && cpu.X86.HasAVX2 {
		loops = append(loops, Loop{"YMM", func(p []byte) { roundsYMM(&p[0], uint64(len(p))) }})
	}
	if vaes && cpu.X86.HasAVX512F {
		loops = append(loops, Loop{"ZMM", func(p []byte) { roundsZMM(&p[0], uint64(len(p))) }})
	}
	return loops
}

// Spin takes n processor cycles, for n a multiple of 64. Where it is not known how
// to do that, it reports false.
func Spin(n uint64) bool {
	spin(n)
	return true
}
