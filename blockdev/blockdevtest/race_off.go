//go:build !race

package blockdevtest

const raceEnabled = false
