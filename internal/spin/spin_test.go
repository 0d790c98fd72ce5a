package spin

import (
	"testing"
	"time"
)

// A caller counts on Pause to be short, and on 0 to be nothing.
func TestPauseReturns(t *testing.T) {
	start := time.Now()
	Pause(0)
	Pause(1000)
	if d := time.Since(start); d > time.Second {
		t.Errorf("1000 pauses took %v", d)
	}
}

func BenchmarkPause(b *testing.B) {
	for range b.N {
		Pause(1)
	}
}
