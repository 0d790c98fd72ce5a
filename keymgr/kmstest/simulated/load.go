package simulated

import "time"

// Second is what happened in one second at the server's door.
type Second struct {
	// Offered is how many calls were made; Taken how many the server worked on;
	// Throttled how many it refused; Lost how many connections failed, in outages too.
	Offered, Taken, Throttled, Lost int
}

// load counts by seconds.
type load []Second

func (l *load) at(now time.Duration) *Second {
	n := int(now / time.Second)
	for len(*l) <= n {
		*l = append(*l, Second{})
	}
	return &(*l)[n]
}
