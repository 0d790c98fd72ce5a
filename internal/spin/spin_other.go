//go:build !amd64

package spin

import "sync/atomic"

var idle atomic.Uint32

// Pause loads a word n times: there is no instruction for it in plain Go.
func Pause(n uint32) {
	for range n {
		idle.Load()
	}
}
