package simulated

import "time"

// bucket is a token bucket.
type bucket struct {
	rate, size float64 // tokens per second, and at most
	tokens     float64
	last       time.Duration
}

func newBucket(rate, size int) *bucket {
	return &bucket{rate: float64(rate), size: float64(size), tokens: float64(size)}
}

// take takes a token, if there is one.
func (b *bucket) take(now time.Duration) bool {
	b.tokens = min(b.size, b.tokens+b.rate*(now-b.last).Seconds())
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
