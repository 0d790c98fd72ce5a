// Command xts writes the assembly of package cipher. Run it by go generate there.
package main

import (
	. "github.com/mmcloughlin/avo/build"
)

func main() {
	ConstraintExpr("amd64,!purego")
	expandKeys()
	for _, w := range []width{xmm, ymm} {
		kernel{width: w}.generate()
		kernel{width: w, decrypt: true}.generate()
	}
	clearVectors()
	clearWide()
	probes()
	Generate()
}
