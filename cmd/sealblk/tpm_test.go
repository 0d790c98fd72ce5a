package main

import (
	"testing"

	"sealblk/internal/swtpm"
)

// TestTPMScripts runs the program with TPMs.
func TestTPMScripts(t *testing.T) {
	runScripts(t, "testdata/tpm", map[string]string{"TPM": swtpm.New(t), "OTHER": swtpm.New(t)})
}
