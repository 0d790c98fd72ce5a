// Package aeslimit measures what the AES units of the processor can do at most: 14
// rounds alone, no tweaks, on data in the first-level cache. It is the yardstick
// of package cipher's speed and has no other use.
//
// The widths of amd64's vector registers are measured each on its own. The kernels
// of package cipher are compared with the loop of their own width.
package aeslimit

// Loop is one way to run the rounds.
type Loop struct {
	Name string
	// Run sends p, a multiple of 512 bytes, through 14 AES rounds under a key of
	// zeros and writes it back. It encrypts nothing in any useful sense.
	Run func(p []byte)
}
