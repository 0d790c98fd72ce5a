package simulated

import (
	"math"
	"math/rand/v2"
	"time"
)

// Options of a KMS. The zero Options are a KMS without limit, latency and faults.
type Options struct {
	// Time; nil: real time.
	Time Time
	// Timeout of a call at the client; 0: 10 s.
	Timeout time.Duration
	// Limit is how many calls a second the server takes, 0 for any number; Burst how
	// many at once after a pause, 0 for a tenth of a second's.
	Limit, Burst int
	// Latency of calls that the server takes. A refusal costs Latency.Min.
	Latency Latency
	// Loss is the share of connections that are lost, 0 to 1.
	Loss float64
	// Outages, in which no connection can be made.
	Outages []Outage
	// Seed of all chance.
	Seed uint64
}

// Outage is a span of time without the server.
type Outage struct{ From, To time.Duration }

// Latency is a distribution of latencies: Min, and on top of it a log-normal
// distribution with this median and 99th percentile. Zero is none.
type Latency struct{ Min, Median, P99 time.Duration }

// z99 is the 99th percentile of the standard normal distribution.
const z99 = 2.3263

func (l Latency) draw(r *rand.Rand) time.Duration {
	if l.Median <= 0 {
		return l.Min
	}
	sigma := 0.0
	if l.P99 > l.Median {
		sigma = math.Log(float64(l.P99)/float64(l.Median)) / z99
	}
	return l.Min + time.Duration(float64(l.Median)*math.Exp(sigma*r.NormFloat64()))
}

func (o Options) withDefaults() Options {
	if o.Time == nil {
		o.Time = Real()
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Burst == 0 {
		o.Burst = max(o.Limit/10, 1)
	}
	return o
}

func (o Options) inOutage(now time.Duration) bool {
	for _, out := range o.Outages {
		if out.From <= now && now < out.To {
			return true
		}
	}
	return false
}
