// Package e2e tests the program from outside, by its command line alone, with real
// Linux guests under QEMU. Its tests carry the build tag e2e.
package e2e
