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

// faultDepth is more stack than an engine and the panic of a fault in it need.
const faultDepth = 16 << 10

// Scrub wipes what a fault in Encrypt or Decrypt left of the key in vector registers
// and on the stack of this goroutine: in mapped memory, say, that vanished. It is for a
// caller who recovers the panic, and calls it once before as well: the stack grows then,
// and there is no copy of it with key material. The kernel's copy of the registers on
// the thread's signal stack is not within its reach.
//
//go:noinline
func Scrub() {
	var pad [faultDepth]byte
	wipe(pad[:])
	clearAllVectors()
}

// wipe is not inlined, so that the compiler cannot tell that nobody reads p.
//
//go:noinline
func wipe(p []byte) { clear(p) }
