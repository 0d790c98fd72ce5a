//go:build race

package blockdevtest

// raceEnabled: the race detector allocates on its own.
const raceEnabled = true
