package cipher

// scrubDepth is more stack than the generic engine needs below its entry points.
const scrubDepth = 4096

// scrubStack overwrites the stack below its caller, where functions that the
// caller called have left key material, and clears the vector registers where it
// can. Called before those functions as well, it makes the stack grow at once, so
// that no copy of it is given back in between.
//
//go:noinline
func scrubStack() {
	var pad [scrubDepth]byte
	wipe(pad[:])
	clearVectors()
}

// wipe is not inlined, so that the compiler cannot tell that nobody reads p.
//
//go:noinline
func wipe(p []byte) { clear(p) }
