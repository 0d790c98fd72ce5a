//go:build !amd64 || purego

package aeslimit

// Loops returns nothing here: there is no loop for this architecture.
func Loops(bool) []Loop { return nil }

// Spin does not know how to count cycles here.
func Spin(uint64) bool { return false }
