package crypt

import (
	"flag"
	"testing"

	"sealblk/cipher"
	"sealblk/internal/leaktest"
)

func TestMain(m *testing.M) {
	// The portable cipher is some fifty times slower than one with the processor's
	// help. It has tests of its own; here it gets a shorter look at the model.
	if len(cipher.Implementations()) == 1 {
		if err := flag.Set("rapid.checks", "10"); err != nil {
			panic(err)
		}
	}
	leaktest.Main(m)
}
